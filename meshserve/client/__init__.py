"""Ask models over gRPC: `Client` in threads, `AsyncClient` in an event loop. Speaks the Open Inference Protocol to any server of it.

    with meshserve.Client("127.0.0.1:8080") as client:
        client.predict("iris", [[5.1, 3.5, 1.4, 0.2]])                      # one input, one output: an array in, an array out
        client.predict("ranker", {"user": users, "items": items})          # several: by name
        client.models()                                                    # what there is

Errors are those of `meshserve.errors`, with the server's message; `retry_after_s` is set where waiting that long is expected to help.
"""

from __future__ import annotations

from meshserve.client.arrays import Inputs
from meshserve.client.async_client import AsyncClient
from meshserve.client.conversation import ListedModel, ModelMetadata, Prediction
from meshserve.client.sync_client import Client

__all__ = ["AsyncClient", "Client", "Inputs", "ListedModel", "ModelMetadata", "Prediction"]

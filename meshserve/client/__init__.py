"""Clients of a mesh: `Client` for threads, `AsyncClient` for loops, `admin` for management.

    with meshserve.Client("127.0.0.1:8080") as client:
        client.predict("iris", [[5.1, 3.5, 1.4, 0.2]])               # one input, one output: arrays
        client.predict("ranker", {"user": users, "items": items})    # several: by name
        client.models()                                              # every registered model

`Client` and `AsyncClient` speak the Open Inference Protocol over gRPC, to any server of it. Errors
are classes of `meshserve.errors` with the server's message; `retry_after_s` is set if the server
gave a time for a retry.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["AsyncClient", "Client", "Inputs", "ListedModel", "ModelMetadata", "Prediction"]
_MODULES = {
    "AsyncClient": "async_client",
    "Client": "sync_client",
    "Inputs": "arrays",
    "ListedModel": "conversation",
    "ModelMetadata": "conversation",
    "Prediction": "conversation",
}


def __getattr__(name: str) -> Any:
    # The command line uses only `admin`, and importing gRPC and numpy takes most of a second.
    if name in _MODULES:
        return getattr(importlib.import_module(f"meshserve.client.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

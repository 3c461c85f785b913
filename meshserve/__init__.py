"""One endpoint for every model of a company.

    with meshserve.Client("127.0.0.1:8080") as client:
        client.predict("iris", [[5.1, 3.5, 1.4, 0.2]])

`Client` is for threads, `AsyncClient` for event loops. They raise the errors of `meshserve.errors`.
"""

from __future__ import annotations

# Nothing that a file of the current folder could stand in for: `python -m meshserve.cli` imports
# this before it can leave that folder out. The types are in the stub beside this file.
import importlib

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> object:
    # Every process of a mesh imports this package, and few need the clients, which import gRPC.
    if name in __all__:
        return getattr(importlib.import_module("meshserve.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

# What type checkers see of the package. At run time the names are imported when first asked for.
from meshserve.client import AsyncClient as AsyncClient
from meshserve.client import Client as Client

__all__ = ["AsyncClient", "Client"]

"""Names that no model and no alias can have, because a path of the API means something else."""

from __future__ import annotations

_NO_URL = "URLs can't name it: clients and proxies take it out of paths"
RESERVED = {
    "stats": "/v2/models/stats is the path of all models' statistics in Triton's protocol",
    ".": _NO_URL,
    "..": _NO_URL,
}


def reason_against(name: str) -> str:
    """Return why nothing can be called so, "" if something can."""
    reason = RESERVED.get(name)
    return f"nothing can be called {name!r}: {reason}" if reason else ""

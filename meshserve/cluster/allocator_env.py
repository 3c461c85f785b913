"""The environment variables that give a worker's process its memory allocator."""

from __future__ import annotations

from pathlib import Path

import ray

from meshserve.worker.models import allocators

JEMALLOC = Path(ray.__file__).parent / "core" / "libjemalloc.so"
"""The jemalloc that Ray preloads into its own servers. Some builds of Ray come without it."""


def variables(allocator: str) -> dict[str, str]:
    """Return the variables for a value of `pools.*.allocator`: `jemalloc` or `system`."""
    if allocator == "system" or not JEMALLOC.is_file():
        return {}
    return {"LD_PRELOAD": str(JEMALLOC), "MALLOC_CONF": allocators.JEMALLOC_CONF}

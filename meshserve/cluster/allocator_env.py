"""What a process must be started with to have another allocator than the system's."""

from __future__ import annotations

from pathlib import Path

import ray

from meshserve.worker.models import allocators

JEMALLOC = Path(ray.__file__).parent / "core" / "libjemalloc.so"
"""Ray's own, which its servers are started with. Where a build of Ray has none, all do with the system's."""


def variables(allocator: str) -> dict[str, str]:
    """The environment for `jemalloc` or `system`, as `pools.*.allocator` has it."""
    if allocator == "system" or not JEMALLOC.is_file():
        return {}
    return {"LD_PRELOAD": str(JEMALLOC), "MALLOC_CONF": allocators.JEMALLOC_CONF}

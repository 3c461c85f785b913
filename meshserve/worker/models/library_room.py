"""Refuse a model whose library would take all the memory that the worker has for models.

An imported library can't be given back: one model of torch in a worker of 400 MiB left no room for
any other model, until the worker ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from meshserve import errors
from meshserve.core.memory import copies
from meshserve.core.values import model
from meshserve.worker.models import loader, process_memory

MIB = 1 << 20


def check(
    recipe: loader.LoadRecipe,
    need: model.Footprint,
    records: Mapping[str, copies.Copy],
    budget_bytes: int,
    private_bytes: Callable[[], int] = process_memory.private_bytes,
) -> None:
    """Raise ModelTooBig if the library isn't imported yet and doesn't fit with a copy of this need.

    All other copies of the `records` may be evicted for it, so only the process itself counts.
    """
    runtime = recipe.runtime
    # An imported library is a part of the process's memory already.
    if not runtime.library_bytes or runtime.library in sys.modules:
        return
    others = (copy for key, copy in records.items() if key != recipe.key)
    booked_bytes = sum(copy.booked.host_bytes for copy in others)
    own_bytes = max(0, private_bytes() - booked_bytes)
    needed_bytes = own_bytes + runtime.library_bytes + need.host_bytes
    if needed_bytes > budget_bytes:
        raise errors.ModelTooBig(
            f"the model needs {runtime.library}, which takes about "
            f"{runtime.library_bytes / MIB:.0f} MiB of a worker's memory for good; with "
            f"{own_bytes / MIB:.0f} MiB for the process itself and "
            f"{need.host_bytes / MIB:.0f} MiB for the model that is more than the pool's "
            f"{budget_bytes / MIB:.0f} MiB: give the pool `memory` of at least "
            f"{needed_bytes / MIB + 1:.0f} MiB"
        )

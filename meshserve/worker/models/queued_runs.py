"""Wait for the run of a request that was queued, and end it if nobody wants its result any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from meshserve import errors
from meshserve.protocol import inference
from meshserve.worker.models import batcher, isolated_process, resident_model, version_leases

ABANDONED_S = 10.0
"""How long a run goes on after its last caller has left, in a process of its own.

Then the process is killed, because nothing else ends a loop, and other requests wait behind it. A
run that only takes long has most of this time and that of its caller.
"""


async def answer(
    call: inference.InferCall,
    ready: version_leases.ReadyModel,
    rows: int,
    outputs: asyncio.Future[batcher.Tensors],
    explain: Callable[[str, errors.MeshError], errors.MeshError],
) -> inference.InferReply:
    """Return the reply of a queued run. If the caller leaves, wait only for a run that has begun.

    Shapes are those of the model's answer. `explain` returns the error to raise in place of the
    MeshError that a run of the copy has raised. Raises CancelledError once the run has ended.
    """
    began_s = time.perf_counter()
    try:
        arrays = await outputs
    except errors.MeshError as error:
        explained = explain(ready.resident.key, error)
        # The request is run again, and counted then.
        if not isinstance(explained, isolated_process.NotRun):
            ready.stats.failure.record(time.perf_counter() - began_s)
        raise explained from None
    except asyncio.CancelledError:
        ready.stats.failure.record(time.perf_counter() - began_s)
        end = ready.resident.batcher.abandon(outputs)
        if end is not None:
            # The copy must stay leased until the run ends.
            await _wait_until_ended(ready.resident, end)
        raise
    ready.stats.record_answer(rows or 1, time.perf_counter() - began_s, time.time())
    signature = ready.resident.answered(arrays)
    return inference.InferReply(call.model, ready.id.version, call.id, arrays, signature)


async def _wait_until_ended(
    resident: resident_model.ResidentModel, end: asyncio.Future[Any]
) -> None:
    process = resident.loaded_copy.process
    if process is not None:
        _, unfinished = await asyncio.wait((end,), timeout=ABANDONED_S)
        if unfinished and not resident.batcher.is_awaited(end):
            process.stop(f"nobody waited for its run any more, for {ABANDONED_S:g} s")
    await asyncio.wait((end,))

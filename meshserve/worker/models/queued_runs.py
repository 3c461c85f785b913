"""Wait for the run of a request that was queued, which may go on after its caller has left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from meshserve import errors
from meshserve.protocol import inference
from meshserve.worker.models import (
    batcher,
    failures,
    isolated_process,
    run_requests,
    version_leases,
)


class QueuedRun(NamedTuple):
    """A request that waits for its run. `outputs` is the future of `Batcher.run`.

    `explain` returns the error to raise in place of the MeshError that a run of the copy has
    raised.
    """

    call: inference.InferCall
    ready: version_leases.ReadyModel
    rows: int
    outputs: asyncio.Future[batcher.Tensors]
    explain: Callable[[str, errors.MeshError], errors.MeshError]

    async def answer(self) -> inference.InferReply:
        """Return the reply, with the shapes of the model's answer.

        Raises CancelledError at once if the caller leaves, DeadlineExceeded when the request's time
        is over: in both cases its run goes on if it has begun.
        """
        ready, began_s = self.ready, time.perf_counter()
        try:
            arrays = await self.outputs
        except errors.MeshError as error:
            explained = self.explain(ready.resident.key, error)
            # The request is run again, and counted then.
            if not isinstance(explained, isolated_process.NotRun):
                # Its cause has the traceback of the model's code.
                explained.__cause__ = error.__cause__
                labels = run_requests.labels_of(ready.id, self.call)
                failures.count(ready.stats, labels, explained, began_s)
            raise explained from None
        except asyncio.CancelledError:
            ready.stats.record_failure("Abandoned", time.perf_counter() - began_s)
            ready.resident.batcher.abandon(self.outputs)
            raise
        ready.stats.record_answer(self.rows or 1, time.perf_counter() - began_s, time.time())
        signature = ready.resident.answered(self.call.inputs, arrays)
        return inference.InferReply(
            self.call.model, ready.id.version, self.call.id, arrays, signature
        )

    def call_at_end(self, release: Callable[[version_leases.ReadyModel], None]) -> None:
        """Call `release` with the model once no run goes on for this request, maybe at once."""
        end = self.ready.resident.batcher.find_end(self.outputs)
        if end is None:
            release(self.ready)
            return

        def released(_: asyncio.Future[Any]) -> None:
            release(self.ready)

        end.add_done_callback(released)

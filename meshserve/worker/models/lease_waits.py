"""Requests that wait until the copy of their model is loaded, and what they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshserve import errors
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model
from meshserve.worker.models import resident_model

PATIENCE_S = 600.0
"""How long a request without a deadline may wait for its model."""


class LeaseWaits:
    """The requests of leases that `Residency` has neither granted nor refused.

    `find` returns the copy in memory under a key; `emit` hands an event to `Residency`.
    """

    def __init__(
        self,
        find: Callable[[str], resident_model.ResidentModel],
        emit: Callable[[ev.Event], None],
    ) -> None:
        self._find = find
        self._emit = emit
        self._waiting: dict[ev.Ticket, asyncio.Future[resident_model.ResidentModel]] = {}
        self._loop = asyncio.get_running_loop()

    async def wait(self, id_: model.ModelId, expires_s: float) -> resident_model.ResidentModel:
        """Request a lease, and return the copy once it is granted; its release is owed.

        `expires_s` is the deadline on the event loop's clock; PATIENCE_S is the longest wait.
        Raises DeadlineExceeded, or the reason why the model is not loaded.
        """
        ticket = object()
        answer: asyncio.Future[resident_model.ResidentModel] = self._loop.create_future()
        # Before the event, which may grant or refuse the lease at once.
        self._waiting[ticket] = answer
        self._emit(ev.LeaseRequested(ticket, id_))
        try:
            async with asyncio.timeout_at(min(expires_s, self._loop.time() + PATIENCE_S)):
                return await answer
        except TimeoutError:
            self._return_unused(answer)
            raise errors.DeadlineExceeded(
                f"Deadline Exceeded: it passed while model {id_} was loading"
            ) from None
        except asyncio.CancelledError:
            self._return_unused(answer)
            raise
        finally:
            # A ticket that was granted or refused is gone; `Residency` still keeps this one.
            if self._waiting.pop(ticket, None) is not None:
                self._emit(ev.RequesterLeft(ticket))

    def _return_unused(self, answer: asyncio.Future[resident_model.ResidentModel]) -> None:
        """Release a lease that was granted just when its requester left."""
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            self._emit(ev.LeaseReleased(answer.result().key))

    def grant(self, ticket: ev.Ticket, key: str) -> None:
        """Give the copy to the request, or release it at once if the requester has left."""
        answer = self._waiting.pop(ticket)
        if answer.done():
            self._emit(ev.LeaseReleased(key))
        else:
            answer.set_result(self._find(key))

    def refuse(self, ticket: ev.Ticket, error: errors.MeshError) -> None:
        """Raise the error where the request waits, unless its requester has just left."""
        answer = self._waiting.pop(ticket)
        # Its deadline may have passed in the same turn of the event loop: then it is cancelled.
        if not answer.done():
            answer.set_exception(error)

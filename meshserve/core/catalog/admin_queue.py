"""Admin requests in the order of their arrival, each decided on what the one before has left."""

from __future__ import annotations

import collections
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.catalog import admin_requests, catalog_index
from meshserve.core.values import commands, events, model


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request, and the ticket to answer; the mesh's own requests have none."""

    request: admin_requests.Request
    ticket: str = ""


class AdminQueue:
    """Admin requests that are not answered yet.

    While the changes of one request are being saved the next ones wait: decided on the catalog
    before those changes, they could contradict them. All other events are handled meanwhile, so a
    registry that stalls holds up nothing but admin requests.
    """

    def __init__(self, index: catalog_index.CatalogIndex, out: commands.Outbox) -> None:
        self.is_configured = False
        self._index = index
        self._out = out
        self._scans: dict[model.Origin, tuple[model.ModelSpec, ...]] = {}
        self._waiting: collections.deque[QueuedRequest] = collections.deque()
        self._saving: tuple[QueuedRequest, commands.SaveChanges] | None = None

    @property
    def has_open(self) -> bool:
        """Whether a request waits, or is being saved."""
        return bool(self._waiting) or self._saving is not None

    def add(self, request: admin_requests.Request, ticket: str = "") -> None:
        """Take in a request, and decide it at once if none is before it."""
        self._waiting.append(QueuedRequest(request, ticket))
        self._advance()

    def saved(self) -> None:
        """Acknowledge the request that was being saved; its changes are in the index already."""
        queued, save = self._take_saving()
        self._finish(queued, save.words)
        self._advance()

    def save_failed(self, error: errors.MeshError) -> None:
        """Refuse the request that was being saved."""
        queued, _ = self._take_saving()
        self._refuse(queued, error)
        self._advance()

    def _take_saving(self) -> tuple[QueuedRequest, commands.SaveChanges]:
        saving, self._saving = self._saving, None
        assert saving is not None, "the registry has answered, but no changes are being saved"
        return saving

    def _advance(self) -> None:
        while self._waiting and self._saving is None:
            self._decide(self._waiting.popleft())

    def _decide(self, queued: QueuedRequest) -> None:
        try:
            save = admin_requests.decide(self._index, queued.request, self._scans)
        except errors.MeshError as error:
            self._refuse(queued, error)
            return
        except Exception as error:
            # Our own bug; the caller must be answered all the same.
            self._refuse(queued, errors.MeshError(f"the controller failed: {error!r}"))
            raise
        if isinstance(queued.request, events.RepositoryScanned):
            self._scans[queued.request.origin] = queued.request.specs
        if save.changes:
            self._saving = (queued, save)
            self._out.append(save)
        else:
            self._finish(queued, save.words)

    def _finish(self, queued: QueuedRequest, words: tuple[str, ...]) -> None:
        self.is_configured |= isinstance(queued.request, events.ConfigApplied)
        if queued.ticket:
            self._out.append(commands.Acknowledge(queued.ticket, words))

    def _refuse(self, queued: QueuedRequest, error: errors.MeshError) -> None:
        if queued.ticket:
            self._out.append(commands.Refuse(queued.ticket, error))

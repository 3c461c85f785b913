"""Loads and unloads that users have asked for, until workers have answered them."""

from __future__ import annotations

from meshserve import errors
from meshserve.core.catalog import catalog_index
from meshserve.core.processes import workers
from meshserve.core.values import commands, events, model

RETRY_AFTER_S = 1.0


def load_command(
    index: catalog_index.CatalogIndex, worker_id: str, id_: model.ModelId, ticket: str = ""
) -> commands.EnsureLoaded:
    """Return the order to load a model, with the time that its declaration gives it.

    An order without a `ticket` is the mesh's own.
    """
    declared = index.models.declared(id_)
    timeout_s = declared.spec.load_timeout_s if declared else 0.0
    return commands.EnsureLoaded(worker_id, id_, timeout_s, ticket)


class CopyRequests:
    """Open loads and unloads by ticket. Each is answered exactly once, also if a worker is lost."""

    def __init__(
        self, index: catalog_index.CatalogIndex, workers_: workers.Workers, out: commands.Outbox
    ) -> None:
        self._index = index
        self._workers = workers_
        self._out = out
        self._loads: dict[str, str] = {}
        self._unloads: dict[str, set[str]] = {}

    def load(self, request: events.ModelLoadRequested) -> None:
        """Order the load on the worker that gets the requests for the name."""
        declared = self._index.models.declared(request.id)
        pool = self._index.pool_of(request.name)
        home = self._workers.home(pool, request.name) if pool else None
        if home is None or declared is None:
            reason = f"no worker is ready to load model {request.name!r}"
            error = errors.Unavailable(reason, retry_after_s=RETRY_AFTER_S)
            self._refuse(request.ticket, error)
            return
        self._loads[request.ticket] = home
        self._out.append(load_command(self._index, home, request.id, request.ticket))

    def unload(self, request: events.ModelUnloadRequested) -> None:
        """Order the unload on every worker of the model's pool. A pinned model is refused."""
        declared = self._index.models.declared(request.id)
        name = repr(str(request.id))
        if declared is None:
            self._refuse(request.ticket, errors.ModelNotFound(f"model {name} is not registered"))
        elif declared.spec.pinned:
            self._refuse(request.ticket, errors.Conflict(f"model {name} is pinned: unpin it first"))
        else:
            # All of the pool, not only reporters of a copy: a load may have begun meanwhile.
            ready = self._workers.ready(declared.spec.pool)
            self._unloads[request.ticket] = set(ready)
            self._out.extend(
                commands.Unload(worker_id, request.id, request.ticket) for worker_id in ready
            )
            self._acknowledge_if_unloaded(request.ticket)

    def copy_ensured(self, event: events.CopyEnsured) -> None:
        """Answer the load that has ended."""
        # Its worker was lost meanwhile, and the caller has been told so.
        if self._loads.pop(event.ticket, None) is None:
            return
        if event.error:
            self._refuse(event.ticket, event.error)
        else:
            self._out.append(commands.Acknowledge(event.ticket))

    def copy_unloaded(self, event: events.CopyUnloaded) -> None:
        """Answer an unload once every worker has answered."""
        waiting = self._unloads.get(event.ticket)
        # The caller has its answer already, by a worker that has failed or was lost.
        if waiting is None:
            return
        # A worker that can't be reached is lost soon, and its copies with it.
        if event.error and not isinstance(event.error, errors.Unavailable):
            del self._unloads[event.ticket]
            self._refuse(event.ticket, event.error)
        else:
            waiting.discard(event.worker_id)
            self._acknowledge_if_unloaded(event.ticket)

    def forget_worker(self, worker_id: str) -> None:
        """Refuse the loads on a worker whose process has ended, and count it as unloaded."""
        lost = [ticket for ticket, home in self._loads.items() if home == worker_id]
        for ticket in lost:
            del self._loads[ticket]
            error = errors.Unavailable(
                f"worker {worker_id} was lost during the load", retry_after_s=RETRY_AFTER_S
            )
            self._refuse(ticket, error)
        for ticket, waiting in list(self._unloads.items()):
            waiting.discard(worker_id)
            self._acknowledge_if_unloaded(ticket)

    def _acknowledge_if_unloaded(self, ticket: str) -> None:
        if not self._unloads[ticket]:
            del self._unloads[ticket]
            self._out.append(commands.Acknowledge(ticket))

    def _refuse(self, ticket: str, error: errors.MeshError) -> None:
        self._out.append(commands.Refuse(ticket, error))

    def check(self) -> None:
        """Assert that every open request waits for a worker whose process runs."""
        for worker_id in {*self._loads.values(), *(w for ws in self._unloads.values() for w in ws)}:
            assert self._workers.running(worker_id) is not None

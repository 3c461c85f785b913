"""How far an acknowledged change has come: which processes in the route have not taken it yet."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.core.processes import gateways, workers
from meshserve.core.processes.reconcile import ProcessState


@dataclass(frozen=True, slots=True)
class ChangeMark:
    """What all processes that get requests must have reached, noted when a change was made.

    `revisions` are those of the workers' catalogs by id and process id; `gateway_revision` is that
    of the gateways' snapshots.
    """

    revisions: dict[tuple[str, int], int]
    gateway_revision: int


def mark(workers_: workers.Workers, gateways_: gateways.Gateways) -> ChangeMark:
    """Return what has been sent so far to the processes that get requests, or soon will."""
    # Those that start too, because they may serve before they have taken the change.
    running = (w for w in workers_.records.values() if w.is_up)
    return ChangeMark(
        {(worker.id, worker.pid): worker.sent for worker in running}, gateways_.revision
    )


def behind(
    noted: ChangeMark, workers_: workers.Workers, gateways_: gateways.Gateways
) -> tuple[str, ...]:
    """Return in words which processes still get requests without having reached the mark.

    A worker that was lost or started anew since is out of the route until it has everything.
    """
    late = []
    for (id_, pid), revision in sorted(noted.revisions.items()):
        worker = workers_.records.get(id_)
        if worker is None or worker.state is not ProcessState.READY or worker.pid != pid:
            continue
        if worker.synced < revision:
            late.append(f"worker {id_}")
    late += (
        f"the gateway on {gateway.node}"
        for gateway in gateways_.records.values()
        if gateway.state is ProcessState.READY and gateway.configured < noted.gateway_revision
    )
    return tuple(late)

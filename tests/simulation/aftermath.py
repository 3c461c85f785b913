"""What must hold once all faults are over, and nobody asks for anything any more."""

from __future__ import annotations

from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import catalog, model
from meshserve.worker.models import run_journal
from tests.simulation import cluster, oracle, world

QUIET_S = 12.0
"""How long the last effects of the last requests may take: a load's timeout, and a little more."""


def check(world_: world.World) -> None:
    """Raise Wrong if something is left over, or if parts of the mesh do not agree."""
    plane = world_.plane
    assert plane is not None
    declared = {declared.spec.id: declared.spec for declared in plane.controller.view().models}
    kept = {
        change.spec.id: change.spec
        for change in world_.registry.load().changes
        if isinstance(change, catalog.ModelDeclared)
    }
    if kept != declared:
        raise oracle.Wrong(f"the registry has {kept.keys()}, the controller {declared.keys()}")
    if plane.controller._answers or plane.controller._conditions:
        raise oracle.Wrong("the controller still owes answers")
    for worker_id in sorted(world_.cluster.workers):
        problem = _problem(world_, worker_id, declared)
        if problem:
            raise oracle.Wrong(f"in the end {worker_id} {problem}")


def _problem(
    world_: world.World, worker_id: str, declared: dict[model.ModelId, model.ModelSpec]
) -> str:
    """Return what is wrong with a worker, or an empty text."""
    record = world_.cluster.workers[worker_id]
    worker = record.worker
    if worker is None or not worker.app.is_ready:
        return "is not ready"
    host = worker.host
    own_catalog = {known.spec.id: known.spec for known in host.catalog_follower.catalog}
    if own_catalog != declared:
        return "has another catalog than the controller"
    pinned = [
        world_.oracle.contents[world_.number(spec)] for spec in declared.values() if spec.pinned
    ]
    if not all(content.is_good for content in pinned):
        # The controller tries pinned models again and again.
        return ""
    return _left_over(record)


def _left_over(record: cluster.WorkerProcess) -> str:
    """Return what a worker should have given back, or an empty text."""
    worker = record.worker
    assert worker is not None
    host = worker.host
    copies = host.residency.copies.values()
    if any(copy.leases or copy.waiters for copy in copies):
        return f"has leases or waiters: {[copy for copy in copies if copy.leases or copy.waiters]}"
    hanging = sum(copy.state is CopyPhase.STUCK for copy in copies)
    residents = host._effects._residents.values()
    if sum(worker.storage.held.values()) != len(residents) + hanging:
        return f"holds {worker.storage.held} for {len(residents)} copies"
    own = [resident for resident in residents if resident.loaded_copy.process is None]
    if worker.memory.models != len(own):
        return f"has {worker.memory.models} models in memory and {len(own)} copies"
    process = record.process
    if process.threads_begun - process.threads_ended != hanging:
        return f"has {process.threads_begun - process.threads_ended} threads, {hanging} hang"
    running = run_journal.running_keys(bytes(worker._journal._slots))
    if len(running) != hanging:
        return f"has notes of runs: {running}"
    tasks = sorted(task.get_name() for task in process.running_tasks)
    expected = ["copy effect"] * hanging + ["tick"]
    return "" if tasks == expected else f"has the tasks {tasks}"

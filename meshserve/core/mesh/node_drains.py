"""Nodes that are to be drained: their copies and engines move first, then all processes leave.

moving  → leaving: moved
leaving → drained: emptied
drained → leaving: refilled

From the wish on the node's gateway is not ready, so that clients go elsewhere, and nothing new is
placed there. Each drain begins anew with a new controller: what has moved is soon seen to have.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass

from meshserve.core import state_table
from meshserve.core.catalog import admin_requests, catalog_index
from meshserve.core.llm import llm_fleet
from meshserve.core.mesh import copy_moves
from meshserve.core.processes import gateways, hash_ring, reconcile, workers
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import commands, desired, events, nodes

NOTICE_S = 5.0
"""How long at least a gateway is not ready and answers all the same: balancers ask at intervals."""


class DrainPhase(enum.StrEnum):
    """How far the drain of a node has come. Users see these words."""

    MOVING = "moving"
    LEAVING = "leaving"
    DRAINED = "drained"


class DrainMove(enum.Enum):
    """The moves between the phases."""

    MOVED = "moved"
    EMPTIED = "emptied"
    REFILLED = "refilled"


LIFECYCLE = state_table.Lifecycle(
    "drain",
    {
        (DrainPhase.MOVING, DrainMove.MOVED): DrainPhase.LEAVING,
        (DrainPhase.LEAVING, DrainMove.EMPTIED): DrainPhase.DRAINED,
        # A process whose start was under way may come up after all.
        (DrainPhase.DRAINED, DrainMove.REFILLED): DrainPhase.LEAVING,
    },
)


@dataclass(slots=True)
class NodeDrain:
    """The drain of one node. Gateways that serve by `revision` send nothing to its workers."""

    wish: nodes.NodeDraining
    begun_s: float
    moves: copy_moves.CopyMoves
    phase: DrainPhase = DrainPhase.MOVING
    revision: int = 0
    may_gateway_go: bool = False
    is_end_ordered: bool = False


class NodeDrains:
    """All drains by node. `follow` runs after each event, and costs nothing without a wish."""

    def __init__(
        self,
        index: catalog_index.CatalogIndex,
        workers_: workers.Workers,
        gateways_: gateways.Gateways,
        fleet: llm_fleet.Fleet,
        out: commands.Outbox,
    ) -> None:
        self.drains: dict[str, NodeDrain] = {}
        self._index = index
        self._workers = workers_
        self._gateways = gateways_
        self._fleet = fleet
        self._out = out
        self._moves = state_table.MoveLog(LIFECYCLE)
        self._extras: set[str] = set()

    # What is wanted because of them

    def _gateway_nodes(self) -> tuple[str, ...]:
        labels = self._index.desired.gateway.labels
        return tuple(
            node.id
            for node in self._index.nodes.seen
            if node.has_labels(labels)
            and not (node.id in self.drains and self.drains[node.id].may_gateway_go)
        )

    def pools(self, pools: tuple[desired.PoolSettings, ...]) -> tuple[desired.PoolSettings, ...]:
        """Return the pools as they are to be now, by what they would be without a drain.

        One whose workers are all on nodes that drain has one more until it has one elsewhere: it
        answers while they move.
        """
        if not (self.drains or self._extras):
            return pools
        self._extras = {pool.name for pool in pools if self._needs_extra(pool)}
        return tuple(
            dataclasses.replace(pool, workers=pool.workers + (pool.name in self._extras))
            for pool in pools
        )

    def _needs_extra(self, pool: desired.PoolSettings) -> bool:
        own = [self._workers.records.get(id_) for id_ in pool.worker_ids()]
        # One that is missing is about to be started elsewhere.
        going = [worker is not None and self._is_going(worker) for worker in own]
        staying = [worker for worker, is_going in zip(own, going, strict=True) if not is_going]
        if pool.name in self._extras:
            return not any(w is not None and w.state is ProcessState.READY for w in staying)
        return any(going) and not staying

    def _is_going(self, worker: workers.WorkerRecord) -> bool:
        return any(_is_on(worker, node) for node in self.drains)

    # What happens

    def copy_ensured(self, event: events.CopyEnsured) -> None:
        """Count a load that a drain waited for."""
        for drain in self.drains.values():
            drain.moves.copy_ensured(event)

    def forget_worker(self, worker_id: str) -> None:
        """Forget the loads on a worker whose process has ended."""
        for drain in self.drains.values():
            drain.moves.forget_worker(worker_id)

    def forget_gone(self, queue: admin_requests.AdminQueue) -> None:
        """End the wishes of nodes that have left the cluster."""
        # Not while another request is open, which may be the same one.
        for node in () if queue.has_open else self._index.nodes.gone():
            queue.add(events.NodeDrainEndRequested(node))

    def follow(self, now_s: float) -> tuple[str, ...]:
        """Begin and end drains as wished, and order what brings each of them on.

        Return the nodes that are to have a gateway now.
        """
        wishes = self._index.nodes.draining
        if wishes.keys() != self.drains.keys():
            self._follow_wishes(now_s)
        for node, drain in self.drains.items():
            drain.wish = wishes[node]
            self._advance(node, drain, now_s)
        return self._gateway_nodes()

    def _follow_wishes(self, now_s: float) -> None:
        wishes = self._index.nodes.draining
        for node in self.drains.keys() - wishes.keys():
            del self.drains[node]
        # Sorted, because the order of a set differs between processes, and commands must not.
        for node in sorted(wishes.keys() - self.drains.keys()):
            moves = copy_moves.CopyMoves(self._index, self._workers, self._out)
            self.drains[node] = NodeDrain(wishes[node], now_s, moves)
        self._workers.avoided = frozenset(wishes)
        self._fleet.avoid(frozenset(wishes))
        # Their gateways are told that they are not ready, or are again.
        self._gateways.configure()

    def _advance(self, node: str, drain: NodeDrain, now_s: float) -> None:
        if drain.phase is DrainPhase.MOVING:
            self._move_copies(node, drain)
            waited_s = now_s - drain.begun_s
            is_moved = waited_s >= NOTICE_S and not self._moving(node, drain)
            if is_moved or waited_s >= drain.wish.move_s:
                self._step(node, drain, DrainMove.MOVED)
                self._fleet.evict(node)
        if drain.phase is not DrainPhase.MOVING:
            self._leave(node, drain)
            is_empty = not any(self.remaining(node))
            if is_empty and drain.phase is DrainPhase.LEAVING:
                self._step(node, drain, DrainMove.EMPTIED)
            elif drain.phase is DrainPhase.DRAINED and not is_empty:
                self._step(node, drain, DrainMove.REFILLED)
            if drain.phase is DrainPhase.DRAINED and drain.wish.is_ended != drain.is_end_ordered:
                drain.is_end_ordered = True
                self._out.append(commands.EndNode(node))

    def _step(self, node: str, drain: NodeDrain, move: DrainMove) -> None:
        drain.phase = self._moves.after(node, drain.phase, move)

    def _move_copies(self, node: str, drain: NodeDrain) -> None:
        rings: dict[str, hash_ring.HashRing] = {}
        for worker in self._workers_on(node):
            pool = worker.settings.pool
            # One whose copies have not been reported yet is looked at later.
            if worker.report is None or drain.moves.has_planned(worker.id):
                continue
            if worker.state is ProcessState.READY and self._staying(pool):
                rings.setdefault(pool, hash_ring.HashRing(self._staying(pool)))
                drain.moves.plan(worker, rings[pool])
        drain.moves.advance()

    def _staying(self, pool: str) -> list[str]:
        """Return the pool's ready workers on nodes that are not drained."""
        ready = (self._workers.records[id_] for id_ in self._workers.ready(pool))
        return [worker.id for worker in ready if not self._is_going(worker)]

    def _moving(self, node: str, drain: NodeDrain) -> bool:
        """Return whether something is still to come up elsewhere before the node is left."""
        return (
            bool(drain.moves.open)
            or any(self._fleet.replicas_on(node))
            or any(
                not drain.moves.has_planned(worker.id)
                for worker in self._workers_on(node)
                if worker.state is ProcessState.READY
            )
        )

    def _leave(self, node: str, drain: NodeDrain) -> None:
        """Order what is left on the node to end: first workers, then the gateway."""
        for worker in self._workers_on(node):
            if worker.state in reconcile.RUNNING:
                self._workers.stop(worker, "its node is drained")
                # That of the configuration which follows from this event.
                drain.revision = self._gateways.revision + 1
        # Before, the gateway might send requests to workers that have ended.
        drain.may_gateway_go = drain.may_gateway_go or (
            self._gateways.revision >= drain.revision
            and self._gateways.have_taken(drain.revision)
            and not any(self._fleet.replicas_on(node))
        )

    # Reading

    def _workers_on(self, node: str) -> list[workers.WorkerRecord]:
        return [worker for worker in self._workers.records.values() if _is_on(worker, node)]

    def remaining(self, node: str) -> Iterator[str]:
        """Return in words what still runs on the node."""
        yield from (f"worker {worker.id}" for worker in self._workers_on(node))
        yield from (f"LLM {replica.id}" for replica in self._fleet.replicas_on(node))
        if node in self._gateways.records:
            yield "its gateway"

    def check(self) -> None:
        """Assert that every drain has its wish, and loads on workers that run."""
        assert self.drains.keys() <= self._index.nodes.draining.keys()
        for drain in self.drains.values():
            for worker_id, _ in drain.moves.places():
                assert self._workers.running(worker_id) is not None


def _is_on(worker: workers.WorkerRecord, node: str) -> bool:
    # Of one that is not up the endpoint may be an earlier process's.
    return worker.is_up and worker.endpoint is not None and worker.endpoint.node == node

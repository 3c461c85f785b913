"""The node of each worker: one that its pool may use, with few workers or with many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.util import scheduling_strategies

from meshserve import errors
from meshserve.cluster import replica_placement
from meshserve.core.values import desired, events


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """A worker's pool, and the node that it was last sent to."""

    pool: str
    node: str


class WorkerPlacements:
    """The nodes of all workers, also of those that an earlier controller has started.

    Ray's own SPREAD puts two of three workers on one of three nodes when they start together,
    because it counts what they ask for, which is nothing.
    """

    def __init__(self) -> None:
        self._places: dict[str, WorkerPlace] = {}
        self._failed: dict[str, str] = {}

    def adopt(self, living: Iterable[events.LivingWorker]) -> None:
        """Note workers that run already."""
        for worker in living:
            place = WorkerPlace(worker.settings.pool, worker.endpoint.node)
            self._places[worker.worker_id] = place

    async def choose(
        self,
        worker_id: str,
        settings: desired.WorkerSettings,
        drained: frozenset[str] = frozenset(),
    ) -> Any:
        """Return Ray's scheduling strategy for the worker, which leads to none of `drained`.

        Raises Unavailable if Ray does not answer, or if no node has what its pool asks for.
        """
        living = await replica_placement.living_nodes()
        nodes = [node for node in living if node["NodeID"] not in drained]
        if living and not nodes:
            raise errors.Unavailable("all nodes are being drained")
        self._places.pop(worker_id, None)
        node = choose_node(
            nodes, settings, list(self._places.values()), self._failed.pop(worker_id, "")
        )
        self._places[worker_id] = WorkerPlace(settings.pool, node)
        # Soft: the node may end before the worker is there, and any other is better than none. But
        # not where the pool has chosen its nodes.
        is_soft = not settings.labels and settings.device == "cpu"
        return scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=is_soft)

    def note_failure(self, worker_id: str) -> None:
        """Have the worker tried on another node the next time: this one may be cut off."""
        place = self._places.get(worker_id)
        if place is not None:
            self._failed[worker_id] = place.node

    def forget(self, worker_id: str) -> None:
        """Count a worker no longer that has been stopped."""
        self._places.pop(worker_id, None)
        self._failed.pop(worker_id, None)


def choose_node(
    nodes: Sequence[Mapping[str, Any]],
    settings: desired.WorkerSettings,
    places: Sequence[WorkerPlace],
    avoided: str = "",
) -> str:
    """Return the id of the node for one more worker; `avoided` only if there is no other.

    `nodes` are Ray's records of the living ones, `places` those of all other workers. `spread`
    takes the node with the fewest workers of the pool, and of all pools where that is equal;
    `pack` the one with the most. Raises Unavailable if no node will do.
    """
    able = [node for node in nodes if _has_room(node, settings, places)]
    if not able:
        raise errors.Unavailable(_missing(nodes, settings))
    of_pool = Counter(place.node for place in places if place.pool == settings.pool)
    of_all = Counter(place.node for place in places)
    sign = -1 if settings.is_packed else 1

    def cost(node: str) -> tuple[bool, int, int, str]:
        # The id last, so that the choice does not depend on the order of Ray's answer.
        return node == avoided, sign * of_pool[node], sign * of_all[node], node

    return min((str(node["NodeID"]) for node in able), key=cost)


def _has_room(
    node: Mapping[str, Any], settings: desired.WorkerSettings, places: Sequence[WorkerPlace]
) -> bool:
    labels: Mapping[str, str] = node.get("Labels") or {}
    if any(labels.get(key) != value for key, value in settings.labels):
        return False
    if settings.device != "cuda":
        return True
    taken = sum(place.node == node["NodeID"] for place in places if place.pool == settings.pool)
    return int(node["Resources"].get("GPU", 0)) > taken


def _missing(nodes: Sequence[Mapping[str, Any]], settings: desired.WorkerSettings) -> str:
    """Return in words what no node has."""
    wanted = [f"the label {key}={value}" for key, value in settings.labels]
    if settings.device == "cuda":
        wanted.append("a free GPU")
    return (
        f"none of the {len(nodes)} nodes has {' and '.join(wanted)}, which "
        f"pools.{settings.pool}.placement asks for"
        if wanted
        else "the cluster has no living node"
    )

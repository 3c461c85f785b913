"""The members of Envoy's ring, with the points that `core/processes/hash_ring.py` gives them.

Each worker is a locality of its own with one share of the ring, and a reserve has all other shares.
Envoy divides the ring's points among localities by their weights. Because the weights always add up
to all shares, a worker's points do not depend on how many others are healthy. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshserve.core.processes import hash_ring
from meshserve.gateway.envoy import Json

RESERVE = "no worker"
"""The reserve's locality: not a worker's id, which has no space."""


def policy(workers: int) -> Json:
    """Return how a cluster of so many workers chooses the one that gets a request."""
    points = hash_ring.shares(workers) * hash_ring.POINTS_PER_WORKER
    return {
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": points, "hash_function": "XX_HASH"},
    }


def localities(members: Mapping[str, Json], any_worker_socket: str) -> list[Json]:
    """Return the localities of the members, by worker id, and of the reserve."""
    if not members:
        return []
    workers = [_locality(worker_id, 1, members[worker_id]) for worker_id in sorted(members)]
    rest = hash_ring.shares(len(members)) - len(members)
    return [*workers, _locality(RESERVE, rest, _reserve(any_worker_socket))]


def _reserve(any_worker_socket: str) -> Json:
    """Return the reserve's one member, which is never healthy and so has no points.

    When all workers seem unhealthy, Envoy chooses among all members of the ring, and mostly this
    one: it passes requests on to any of the workers.
    """
    return {
        "endpoint": {
            "address": {"pipe": {"path": any_worker_socket}},
            "health_check_config": {"disable_active_health_check": True},
        },
        "health_status": "UNHEALTHY",
    }


def _locality(zone: str, weight: int, member: Json) -> Json:
    return {
        "locality": {"zone": zone},
        "load_balancing_weight": weight,
        "lb_endpoints": [member],
    }

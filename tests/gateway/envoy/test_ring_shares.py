from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.processes import hash_ring
from meshserve.gateway.envoy import ring_shares


@pytest.mark.parametrize("count", [1, 2, 1000, 1023, 1024])
def test_weights_add_up_to_all_shares_and_a_share_is_a_workers_points(count: int) -> None:
    members: Any = {f"default-{number}": {} for number in range(count)}
    localities: Any = ring_shares.localities(members, "/run/any.sock")
    weights = [locality["load_balancing_weight"] for locality in localities]
    assert weights[:-1] == [1] * count
    assert weights[-1] > 0
    policy: Any = ring_shares.policy(count)
    points = policy["ring_hash_lb_config"]["minimum_ring_size"]
    assert points == sum(weights) * hash_ring.POINTS_PER_WORKER <= 8 << 20


def test_the_reserve_is_never_healthy() -> None:
    localities: Any = ring_shares.localities({"default-0": {}}, "/run/any.sock")
    assert localities[-1]["locality"]["zone"] == ring_shares.RESERVE
    assert localities[-1]["lb_endpoints"][0]["health_status"] == "UNHEALTHY"


def test_a_pool_without_members_has_no_reserve_either() -> None:
    assert ring_shares.localities({}, "/run/any.sock") == []

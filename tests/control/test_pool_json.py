from __future__ import annotations

import dataclasses

from meshserve.control import pool_json
from meshserve.core.values import desired, llm_events
from tests.core import world

SCALING = desired.ScalingSettings(0, grow_after_s=5.0, shrink_after_s=30.0)
POOL = dataclasses.replace(world.pool(workers=4), scaling=SCALING)


def test_a_pool_tells_what_it_should_have_and_why() -> None:
    stage = world.World()
    stage.apply(pools=(POOL, world.pool("fixed", 1)), models=(world.spec("a"),))
    sleeping, fixed = pool_json.pools(stage.mesh.view())
    assert sleeping["workers"] == []
    assert (sleeping["workers_min"], sleeping["workers_max"]) == (0, 4)
    assert (sleeping["workers_wanted"], sleeping["reason"], sleeping["held"]) == (0, "", 0)
    assert (fixed["workers_min"], fixed["workers_wanted"], fixed["workers_max"]) == (1, 1, 1)
    stage.feed(llm_events.RequestHeld("t", "a", 1, is_small=True))
    asked, _ = pool_json.pools(stage.mesh.view())
    assert (asked["workers_wanted"], asked["reason"], asked["held"]) == (1, "a request came", 1)
    assert [worker["state"] for worker in asked["workers"]] == ["starting"]


def test_a_mesh_is_ready_with_as_many_workers_as_each_pool_must_have() -> None:
    stage = world.World()
    stage.apply(pools=(POOL, world.pool("fixed", 2)), models=(world.spec("a"),))
    assert pool_json.are_ready(stage.mesh.view())
    stage.feed(llm_events.RequestHeld("t", "a", 1, is_small=True))
    assert pool_json.are_ready(stage.mesh.view()), "more are started than must be there"
    stage.kill("fixed-1")
    assert not pool_json.are_ready(stage.mesh.view())

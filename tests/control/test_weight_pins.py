from __future__ import annotations

from typing import Any

import orjson

from meshserve.core.values import llm_spec
from tests.control import conftest

Weights = llm_spec.Weights
LLMS: dict[str, Any] = {
    "llms": [
        {"name": "a", "uri": "/models/a", "adapters": [{"name": "a-sql", "uri": "/models/sql"}]},
        {"name": "b", "uri": "hf://org/b", "engine": {"revision": "v1"}},
    ]
}


def pinned(stage: conftest.Stage) -> dict[str, Weights | None]:
    """Return the weights of the configuration in force, by name."""
    llms = stage.mesh.catalog.desired.llms
    adapters = {part.name: part.weights for llm in llms for part in llm.adapters}
    return {llm.name: llm.weights for llm in llms} | adapters


async def apply(stage: conftest.Stage) -> tuple[str, ...]:
    return await stage.plane.admin.apply(orjson.dumps(conftest.CONFIG | LLMS))


async def test_a_configuration_is_bound_to_the_weights_that_are_there(
    stage: conftest.Stage,
) -> None:
    stage.weights = {"/models/a": Weights("1"), "hf://org/b@v1": Weights("commit 2")}
    await apply(stage)
    assert pinned(stage) == {"a": Weights("1"), "a-sql": None, "b": Weights("commit 2")}
    assert await apply(stage) == ()


async def test_changed_weights_are_a_change(stage: conftest.Stage) -> None:
    stage.weights = {"/models/a": Weights("1"), "/models/sql": Weights("2", "h", "3")}
    await apply(stage)
    stage.weights["/models/a"] = Weights("5")
    assert await apply(stage) == ("llm a changed (weights)",)
    stage.weights["/models/sql"] = Weights("2", "h", "4")
    assert await apply(stage) == ("llm a changed (adapters)",)


async def test_what_nobody_can_say_now_stays_as_it_was(stage: conftest.Stage) -> None:
    stage.weights = {"/models/a": Weights("1", "h", "2")}
    await apply(stage)
    stage.weights = {}
    assert await apply(stage) == ()
    # The same files, seen on another machine.
    stage.weights = {"/models/a": Weights("1", "other", "9")}
    assert await apply(stage) == ()
    assert pinned(stage)["a"] == Weights("1", "h", "2")


async def test_a_restarted_controller_keeps_them(stage: conftest.Stage) -> None:
    stage.weights = {"/models/a": Weights("1"), "hf://org/b@v1": Weights("commit 2")}
    await apply(stage)
    before = pinned(stage)
    await stage.plane.close()
    stage.weights = {"/models/a": Weights("other")}
    await stage.start(restarts=1)
    assert pinned(stage) == before
    await stage.plane.close()
    words = await stage.start(conftest.CONFIG | LLMS)
    assert words == ("llm a changed (weights)",)

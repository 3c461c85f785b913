"""The actor in this process; test_replica_placement.py has it in a process of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve import errors
from meshserve.cluster import actor_process, process_guard, replica_actor
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_server
from meshserve.testing import fake_engine

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]

SPEC = llm_spec.LlmSpec("a", "/a")


@pytest.fixture
def engine() -> Any:
    return []


@pytest.fixture
async def actor(run_dir: str, engine: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(
        process_guard, "guard_this_process", lambda: None
    )  # this process is the test's

    async def make(address: Any, spec: Any, backend: Any) -> Any:
        engine.append(fake_engine.FakeEngine(can_sleep=True))
        order = llm_engine.EngineOrder(spec, spec.uri, {}, backend, address.run_dir)
        return llm_server.LlmServer(address, order, lambda: engine[0])

    replica = replica_actor.ReplicaActor(
        make, model.ServerAddress("a/0", f"{run_dir}/new"), SPEC, "mp"
    )
    yield replica
    await replica.stop()


async def test_a_replica_that_was_not_started_is_unavailable(actor: Any) -> None:
    answers = [
        await actor.living(),
        await actor.report(),
        await actor.live(),
        await actor.sleep(1),
        await actor.wake(),
    ]
    assert {(type(answer), answer.message) for answer in answers} == {
        (errors.Unavailable, "replica a/0 is not started")
    }
    assert await actor.stop() is None


async def test_a_replica_is_built_on_the_node_of_its_actor(actor: Any) -> None:
    endpoint, pid = await actor.start()
    assert (pid, endpoint.node) == (os.getpid(), actor_process.node_id())
    assert await actor.living() == llm_spec.LivingReplica("a/0", SPEC, endpoint, os.getpid())
    assert (await actor.report()).replica_id == "a/0"


async def test_living_says_whether_the_engine_sleeps(actor: Any, engine: Any) -> None:
    await actor.start()
    await actor.sleep(2)
    assert (await actor.living()).is_asleep
    await actor.wake()
    assert not (await actor.living()).is_asleep
    assert engine[0].calls[-3:] == ["sleep 2", "wake", "token"]


async def test_live_returns_the_reason_why_the_engine_ended(actor: Any, engine: Any) -> None:
    await actor.start()
    engine[0].die("the engine core was killed")
    assert await actor.live() == "the engine core was killed"

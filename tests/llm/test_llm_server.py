from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_server
from meshserve.testing import fake_engine
from tests import support

SPEC = llm_spec.LlmSpec("tiny", "/m", start_timeout_s=5.0, stall_timeout_s=0.5)


def made_of(engine, run_dir, spec=SPEC):
    return llm_server.LlmServer(
        model.ServerAddress("tiny/0", str(run_dir)),
        llm_engine.EngineOrder(spec, "/m"),
        lambda: engine,
    )


@contextlib.asynccontextmanager
async def started(engine, run_dir, spec=SPEC):
    """A server that serves, and a client of it."""
    made = made_of(engine, run_dir, spec)
    endpoint = await made.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{endpoint.host}:{endpoint.port}", trust_env=False
        ) as client:
            yield made, client
    finally:
        await made.stop()


def ask(client, tokens=3):
    return client.post(
        "/v1/completions", json={"model": "tiny", "prompt": "x", "max_tokens": tokens}
    )


async def test_it_listens_once_a_token_was_made(tmp_path):
    engine = fake_engine.FakeEngine()
    async with started(engine, tmp_path) as (made, client):
        assert engine.calls == ["start", "token"]
        assert (await ask(client)).status_code == 200
        assert [str(path) for path in tmp_path.iterdir()] == [made.address.socket_path]
    assert list(tmp_path.iterdir()) == []
    assert engine.calls[-1] == "close"


async def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path):
    engine = fake_engine.FakeEngine(start_failure="no such architecture")
    with pytest.raises(errors.LoadFailed, match="no such architecture"):
        await made_of(engine, tmp_path).start()
    assert engine.calls == ["start", "close"]
    assert list(tmp_path.iterdir()) == []


async def test_a_start_that_takes_too_long_is_given_up(tmp_path):
    engine = fake_engine.FakeEngine(start_s=60)
    with pytest.raises(errors.LoadFailed, match=r"within 0.1 s"):
        await made_of(engine, tmp_path, llm_spec.LlmSpec("tiny", "/m", start_timeout_s=0.1)).start()
    assert engine.failure() == "it was ended"


async def test_before_its_start_it_has_nothing_to_report_drain_or_wake(tmp_path):
    made = made_of(fake_engine.FakeEngine(), tmp_path)
    assert made.report() == llm_spec.LlmReport("tiny/0")
    await made.drain(1)
    with pytest.raises(errors.Unavailable):
        await made.wake()
    await made.stop()


async def test_an_engine_that_dies_is_a_failure_with_its_reason(tmp_path):
    engine = fake_engine.FakeEngine()
    async with started(engine, tmp_path) as (made, client):
        engine.die("out of memory")
        assert await made.wait_until_failed() == "out of memory"
        answer = await ask(client)
        assert (answer.status_code, "out of memory" in answer.text) == (503, True)
        assert made.report().running == 0


async def test_an_engine_that_stalls_is_a_failure_and_is_ended(tmp_path):
    engine = fake_engine.FakeEngine()
    async with started(engine, tmp_path) as (made, client):
        engine.stall()
        answer = await ask(client)
        assert answer.status_code == 500
        assert "got on" in await made.wait_until_failed()


async def test_a_slow_engine_is_not_a_stalled_one(tmp_path):
    async with started(fake_engine.FakeEngine(step_s=0.2), tmp_path) as (made, client):
        assert (await ask(client, 5)).status_code == 200
        assert made.report().stalled_s == 0


async def test_draining_waits_no_longer_than_it_is_told_to(tmp_path):
    engine = fake_engine.FakeEngine(step_s=0.1)
    async with started(engine, tmp_path) as (made, client):
        asked = asyncio.ensure_future(ask(client, 5))
        await support.wait_until_async(lambda: made.report().running == 1)
        await made.drain(0.05)
        assert not asked.done()
        await made.drain(20)
        assert (await asked).status_code == 200
        assert (await client.get("/healthz")).status_code == 503


async def test_a_sleeper_sends_requests_away_until_it_wakes(tmp_path):
    engine = fake_engine.FakeEngine(can_sleep=True)
    async with started(engine, tmp_path) as (made, client):
        await made.sleep(2)
        assert "asleep" in (await ask(client)).json()["error"]["message"]
        await made.wake()
        assert (await ask(client)).status_code == 200
        assert engine.calls[2:] == ["sleep 2", "wake", "token"]


async def test_it_sleeps_once_its_requests_are_answered(tmp_path):
    async with started(fake_engine.FakeEngine(can_sleep=True, step_s=0.05), tmp_path) as (
        made,
        client,
    ):
        asked = asyncio.ensure_future(ask(client, 5))
        await support.wait_until_async(lambda: made.report().running == 1)
        await made.sleep(1)
        assert (await asked).status_code == 200


async def test_an_engine_that_can_t_sleep_serves_on(tmp_path):
    async with started(fake_engine.FakeEngine(), tmp_path) as (made, client):
        with pytest.raises(errors.Unsupported):
            await made.sleep(1)
        assert (await ask(client)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


async def test_an_engine_that_does_not_wake_has_failed(tmp_path):
    engine = fake_engine.FakeEngine(can_sleep=True)
    async with started(engine, tmp_path, llm_spec.LlmSpec("tiny", "/m", start_timeout_s=0.5)) as (
        made,
        _,
    ):
        await made.sleep(1)
        engine.stall()
        with pytest.raises(errors.Unavailable, match="did not wake: no token"):
            await made.wake()
        assert "did not wake" in await made.wait_until_failed()

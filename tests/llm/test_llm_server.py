from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from meshserve import errors, tasks
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_server
from meshserve.testing import fake_engine
from tests import support

SPEC = llm_spec.LlmSpec("tiny", "/m", start_timeout_s=5.0, stall_timeout_s=0.5)


def server_of(
    engine: llm_engine.Engine,
    run_dir: Path,
    spec: llm_spec.LlmSpec = SPEC,
    check: Callable[[llm_spec.LlmSpec], Awaitable[None]] = llm_server.accept_weights,
) -> llm_server.LlmServer:
    return llm_server.LlmServer(
        model.ServerAddress("tiny/0", str(run_dir)),
        llm_engine.EngineOrder(spec, "/m"),
        lambda: engine,
        llm_server.WeightsAccess(check),
    )


def paths_in(folder: Path) -> list[str]:
    return [str(path) for path in folder.iterdir()]


@contextlib.asynccontextmanager
async def started(
    engine: llm_engine.Engine, run_dir: Path, spec: llm_spec.LlmSpec = SPEC
) -> AsyncIterator[tuple[llm_server.LlmServer, httpx.AsyncClient]]:
    """Yield a server that serves, and a client of it."""
    server = server_of(engine, run_dir, spec)
    endpoint = await server.start()
    try:
        transport = httpx.AsyncHTTPTransport(uds=endpoint.socket_path)
        async with httpx.AsyncClient(base_url="http://llm", transport=transport) as client:
            yield server, client
    finally:
        await server.stop()


async def ask(client: httpx.AsyncClient, tokens: int = 3) -> httpx.Response:
    return await client.post(
        "/v1/completions", json={"model": "tiny", "prompt": "x", "max_tokens": tokens}
    )


async def test_it_listens_once_the_engine_has_made_a_token(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine()
    async with started(engine, tmp_path) as (server, client):
        assert engine.calls == ["start", "token"]
        assert (await ask(client)).status_code == 200
        assert paths_in(tmp_path) == [server.address.socket_path]
    assert paths_in(tmp_path) == []
    assert engine.calls[-1] == "close"


async def test_a_failed_start_raises_the_reason_and_leaves_nothing(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine(start_failure="no such architecture")
    with pytest.raises(errors.LoadFailed, match="no such architecture"):
        await server_of(engine, tmp_path).start()
    assert engine.calls == ["start", "close"]
    assert paths_in(tmp_path) == []


async def test_an_engine_that_read_other_weights_never_serves(tmp_path: Path) -> None:
    async def check(_: llm_spec.LlmSpec) -> None:
        raise errors.Unloadable("the weights have changed")

    engine = fake_engine.FakeEngine(can_sleep=True)
    server = server_of(engine, tmp_path, check=check)
    with pytest.raises(errors.Unloadable, match="have changed"):
        await server.start()
    assert (engine.calls, paths_in(tmp_path)) == (["start", "close"], [])


async def test_an_engine_that_reads_other_weights_when_it_wakes_is_killed(tmp_path: Path) -> None:
    changed: list[str] = []

    async def check(_: llm_spec.LlmSpec) -> None:
        if changed:
            raise errors.Unloadable(changed[0])

    engine = fake_engine.FakeEngine(can_sleep=True)
    server = server_of(engine, tmp_path, check=check)
    await server.start()
    await server.sleep(2)
    changed.append("the weights have changed")
    with pytest.raises(errors.Unavailable, match="have changed"):
        await server.wake()
    assert "have changed" in await server.wait_until_failed()
    await server.stop()


async def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine(start_s=60)
    with pytest.raises(errors.LoadFailed, match=r"within 0.1 s"):
        await server_of(
            engine, tmp_path, llm_spec.LlmSpec("tiny", "/m", start_timeout_s=0.1)
        ).start()
    assert engine.failure() == "it was ended"


async def test_before_its_start_it_reports_nothing_and_can_not_wake(tmp_path: Path) -> None:
    server = server_of(fake_engine.FakeEngine(), tmp_path)
    assert server.report() == llm_spec.LlmReport("tiny/0")
    await server.drain(1)
    with pytest.raises(errors.Unavailable):
        await server.wake()
    await server.stop()


async def test_a_dead_engine_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine()
    async with started(engine, tmp_path) as (server, client):
        engine.die("out of memory")
        assert await server.wait_until_failed() == "out of memory"
        answer = await ask(client)
        assert (answer.status_code, "out of memory" in answer.text) == (503, True)
        assert server.report().running == 0


async def test_a_stalled_engine_is_a_failure_and_is_killed(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine()
    async with started(engine, tmp_path) as (server, client):
        engine.stall()
        answer = await ask(client)
        assert answer.status_code == 500
        assert "got on" in await server.wait_until_failed()


async def test_a_slow_engine_is_not_a_stalled_one(tmp_path: Path) -> None:
    async with started(fake_engine.FakeEngine(step_s=0.2), tmp_path) as (server, client):
        assert (await ask(client, 5)).status_code == 200
        assert server.report().stalled_s == 0


async def test_draining_ends_with_its_timeout(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine(step_s=0.1)
    async with started(engine, tmp_path) as (server, client):
        request = tasks.spawn(ask(client, 5), "ask", is_awaited=True)
        await support.wait_until_async(lambda: server.report().running == 1)
        await server.drain(0.05)
        assert not request.done()
        await server.drain(20)
        assert (await request).status_code == 200
        assert (await client.get("/healthz")).status_code == 503


async def test_a_sleeping_replica_refuses_requests_until_it_wakes(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine(can_sleep=True)
    async with started(engine, tmp_path) as (server, client):
        await server.sleep(2)
        assert "asleep" in (await ask(client)).json()["error"]["message"]
        await server.wake()
        assert (await ask(client)).status_code == 200
        assert engine.calls[2:] == ["sleep 2", "wake", "token"]


async def test_it_sleeps_once_its_requests_are_answered(tmp_path: Path) -> None:
    async with started(fake_engine.FakeEngine(can_sleep=True, step_s=0.05), tmp_path) as (
        server,
        client,
    ):
        request = tasks.spawn(ask(client, 5), "ask", is_awaited=True)
        await support.wait_until_async(lambda: server.report().running == 1)
        await server.sleep(1)
        assert (await request).status_code == 200


async def test_an_engine_that_can_not_sleep_serves_on(tmp_path: Path) -> None:
    async with started(fake_engine.FakeEngine(), tmp_path) as (server, client):
        with pytest.raises(errors.Unsupported):
            await server.sleep(1)
        assert (await ask(client)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


async def test_an_engine_that_does_not_wake_has_failed(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine(can_sleep=True)
    async with started(engine, tmp_path, llm_spec.LlmSpec("tiny", "/m", start_timeout_s=0.5)) as (
        server,
        _,
    ):
        await server.sleep(1)
        engine.stall()
        with pytest.raises(errors.Unavailable, match="did not wake: no token"):
            await server.wake()
        assert "did not wake" in await server.wait_until_failed()


class Plain(fake_engine.FakeEngine):
    """Declares nothing: neither sleep nor adapters."""

    @property
    def capabilities(self) -> llm_engine.EngineCapabilities:
        return llm_engine.EngineCapabilities()


@pytest.mark.parametrize("is_over_tcp", [True, False], ids=["tcp", "unix"])
async def test_for_other_nodes_it_asks_for_the_secret_on_all_paths(
    tmp_path: Path, is_over_tcp: bool
) -> None:
    address = model.ServerAddress("tiny/0", str(tmp_path), host="127.0.0.1", secret="s" * 43)
    order = llm_engine.EngineOrder(SPEC, "/m")
    server = llm_server.LlmServer(address, order, fake_engine.FakeEngine)
    endpoint = await server.start()
    transport = httpx.AsyncHTTPTransport(uds=None if is_over_tcp else endpoint.socket_path)
    url = f"http://{endpoint.host}:{endpoint.port}"
    try:
        async with httpx.AsyncClient(base_url=url, transport=transport) as client:
            for path in ("/healthz", "/health", "/metrics", "/v1/models", "/nothing"):
                assert (await client.get(path)).status_code == 401
            assert (await ask(client)).status_code == 401
            client.headers["x-mesh-secret"] = address.secret
            assert (await ask(client)).status_code == 200
    finally:
        await server.stop()


async def test_without_other_nodes_it_has_no_port(tmp_path: Path) -> None:
    server = server_of(fake_engine.FakeEngine(), tmp_path)
    endpoint = await server.start()
    assert (endpoint.host, endpoint.port) == ("", 0)
    await server.stop()


async def test_adapters_are_refused_for_an_engine_without(tmp_path: Path) -> None:
    address = model.ServerAddress("tiny/0", str(tmp_path))
    order = llm_engine.EngineOrder(SPEC, "/m", {"lora": "/lora"})
    server = llm_server.LlmServer(address, order, Plain)
    with pytest.raises(errors.LoadFailed, match="tiny has adapters"):
        await server.start()


async def test_a_replica_on_unshared_gpus_says_why_it_can_not_sleep(tmp_path: Path) -> None:
    async with started(Plain(), tmp_path) as (server, _):
        with pytest.raises(errors.Unsupported, match="not started to share its GPUs"):
            await server.sleep(1)


async def test_it_follows_a_spec_with_other_adapters_and_times(tmp_path: Path) -> None:
    engine = fake_engine.FakeEngine()
    spec = dataclasses.replace(SPEC, adapters=(llm_spec.Adapter("sql", "/sql"),))
    async with started(engine, tmp_path) as (server, client):
        await server.update(spec)
        answer = await client.post("/v1/completions", json={"model": "sql", "prompt": "x"})
        assert answer.status_code == 200
        assert server.report().can_change_adapters
        spoilt = dataclasses.replace(spec, adapters=(llm_spec.Adapter("sql", "/spoilt"),))
        with pytest.raises(errors.LoadFailed, match="is no adapter"):
            await server.update(spoilt)
        assert server.spec == spec


async def test_a_server_that_is_not_started_follows_no_spec(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable):
        await server_of(fake_engine.FakeEngine(), tmp_path).update(SPEC)

"""The registry's database is stopped, or hangs, under load; a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests import support
from tests.e2e import running
from tests.faults import traffic
from tests.registry import postgres

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(240)]

RESIDENT, COLD = 10, 6
PER_S = 50
# A longer outage is no other one: the table in docs/reliability.md has 30 s.
AWAY_S = float(os.environ.get("MESHSERVE_TEST_AWAY_S", "6"))
ANSWER_S = 30.0
NAMES = itertools.count()


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Postgres]:
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="module")
def mesh(
    database: postgres.Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("models")
    document = {
        "registry": {"url": database.new_schema()},
        "pools": {"default": {"workers": 2, "memory": "1GiB"}},
        "models": traffic.models(folder, RESIDENT + 2 * COLD),
    }
    with running.mesh(document) as started:
        yield started


async def register(client: httpx.AsyncClient, uri: str) -> tuple[str, httpx.Response, float]:
    name, begun_s = f"new{next(NAMES)}", time.monotonic()
    answer = await client.put(f"/mesh/v1/models/{name}", json={"uri": uri})
    return name, answer, time.monotonic() - begun_s


@asynccontextmanager
async def under_load(mesh: running.Mesh, cold: range) -> AsyncIterator[httpx.AsyncClient]:
    """Have traffic for the models in memory in the block, and load these others amid it."""
    async with (
        traffic.flowing(mesh.listen, traffic.zipf(RESIDENT), PER_S) as flow,
        grpc.aio.insecure_channel(mesh.listen) as channel,
        httpx.AsyncClient(base_url=f"http://{mesh.listen}", timeout=support.WAIT_S) as client,
    ):
        await support.wait_until_async(lambda: flow.answered > PER_S, what="traffic")
        first = traffic.Traffic()
        stub = rpc.GRPCInferenceServiceStub(channel)

        async def load() -> None:
            for number in cold:
                await asyncio.sleep(AWAY_S / 2 / len(cold))
                await first.ask(stub, number)

        loading = tasks.spawn(load(), "load", is_awaited=True)
        yield client
        await loading
    assert (flow.faults, first.faults) == ([], [])
    assert first.answered == len(cold)
    print(  # noqa: T201 - for the table of docs/reliability.md
        f"{flow.answered} answered, slowest {flow.slowest_s:.2f} s; "
        f"{first.answered} cold, slowest {first.slowest_s:.2f} s"
    )


async def refused(client: httpx.AsyncClient, mesh: running.Mesh) -> list[str]:
    """Register a model again and again for the time of the outage; return the names."""
    names = []
    uri = mesh.document["models"][0]["uri"]
    end_s = time.monotonic() + AWAY_S
    while time.monotonic() < end_s:
        name, answer, took_s = await register(client, uri)
        assert answer.status_code == 503, answer.text
        assert "registry" in answer.json()["error"]
        assert took_s < ANSWER_S
        names.append(name)
        await asyncio.sleep(0.2)
    return names


async def is_taken_again(client: httpx.AsyncClient, mesh: running.Mesh) -> str:
    """Register until it is accepted; return the name."""
    end_s = time.monotonic() + support.WAIT_S
    while True:
        name, answer, _ = await register(client, mesh.document["models"][0]["uri"])
        if answer.is_success:
            return name
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < end_s, answer.text
        await asyncio.sleep(0.2)


def registered(mesh: running.Mesh) -> set[str]:
    listed = mesh.http.get("/mesh/v1/models").raise_for_status().json()["models"]
    return {entry["name"] for entry in listed if entry["name"].startswith("new")}


def end_controller(mesh: running.Mesh) -> None:
    """Kill the controller; return when the next one has begun."""
    before = mesh.status()["controller"]["pid"]
    os.kill(before, signal.SIGKILL)
    support.wait_until(lambda: _is_another(mesh, before), what="the controller is back")


def _is_another(mesh: running.Mesh, before: int) -> bool:
    answer = mesh.http.get("/mesh/v1/status")
    return answer.is_success and bool(answer.json()["controller"]["pid"] != before)


async def has_been_replaced(client: httpx.AsyncClient, pid: int) -> bool:
    end_s = time.monotonic() + support.WAIT_S
    while time.monotonic() < end_s:
        answer = await client.get("/mesh/v1/status")
        workers = answer.raise_for_status().json()["pools"][0]["workers"]
        if all(worker["state"] == "ready" and worker["pid"] != pid for worker in workers):
            return True
        await asyncio.sleep(0.1)
    return False


async def what_the_controller_waits_for(client: httpx.AsyncClient) -> httpx.Response:
    end_s = time.monotonic() + support.WAIT_S
    while True:
        answer = await client.get("/mesh/v1/models")
        if "the controller waits for its registry" in answer.text:
            return answer
        assert time.monotonic() < end_s, answer.text
        await asyncio.sleep(0.1)


async def test_a_database_that_hangs_holds_up_nobody(
    mesh: running.Mesh, database: postgres.Postgres
) -> None:
    async with under_load(mesh, range(RESIDENT, RESIDENT + COLD)) as client:
        dead = mesh.workers()["default-0"]["pid"]
        database.hang()
        try:
            os.kill(dead, signal.SIGKILL)
            names = await refused(client, mesh)
            # Without the database too, what has died is replaced.
            assert await has_been_replaced(client, dead)
        finally:
            database.go_on()
        kept = await is_taken_again(client, mesh)
    # What the controller holds is what the registry has, also of calls that ended in the commit.
    held = registered(mesh)
    assert held <= {kept, *names}
    end_controller(mesh)
    assert registered(mesh) == held


async def test_a_database_that_is_stopped_holds_up_nobody_and_neither_does_the_controllers_death(
    mesh: running.Mesh, database: postgres.Postgres
) -> None:
    held = registered(mesh)
    controller = mesh.status()["controller"]["pid"]
    async with under_load(mesh, range(RESIDENT + COLD, RESIDENT + 2 * COLD)) as client:
        database.stop()
        try:
            await refused(client, mesh)
            os.kill(controller, signal.SIGKILL)
            # The next one says what it waits for, once Envoy knows its socket.
            answer = await what_the_controller_waits_for(client)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        finally:
            database.start()
        kept = await is_taken_again(client, mesh)
    assert registered(mesh) == {*held, kept}
    support.wait_until(lambda: mesh.status()["state"] == "ready", what="the mesh is ready")

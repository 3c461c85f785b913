"""Models that end the process that loads or runs them, under 100 requests a second for others."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests import support
from tests.e2e import running
from tests.faults import poisons, traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(400)]

MODELS = 10
PER_S = 100
READY_S = 60.0
CASES = [(kind, where) for kind in poisons.KINDS for where in ("load", "predict")]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("models")
    poisoned = [
        {
            "name": f"{kind}-{where}",
            "uri": poisons.write(folder / f"{kind}-{where}", where, poisons.KINDS[kind][0]),
            "runtime": "python",
            "trust": True,
            "isolate": "none",
        }
        for kind, where in CASES
    ]
    document = {
        "pools": {"default": {"workers": 3, "memory": "1GiB"}},
        "models": [*traffic.models(folder, MODELS), *poisoned],
    }
    with running.mesh(document) as started:
        yield started


async def ask_rest(mesh: running.Mesh, name: str, value: float) -> tuple[str, str]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [value] * 8}
    answer = await asyncio.to_thread(
        mesh.http.post, f"/v2/models/{name}/infer", json={"inputs": [tensor]}, timeout=60
    )
    return str(answer.status_code), answer.text


async def ask_grpc(mesh: running.Mesh, name: str, value: float) -> tuple[str, str]:
    asked = pb.ModelInferRequest(model_name=name)
    asked.inputs.add(name="x", datatype="FP32", shape=(1, 8))
    asked.raw_input_contents.append(np.full(8, value, np.float32).tobytes())
    async with grpc.aio.insecure_channel(mesh.listen) as channel:
        stub: Any = rpc.GRPCInferenceServiceStub(channel)
        try:
            await stub.ModelInfer(asked, timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
    return "200", ""


async def until_refused(mesh: running.Mesh, name: str, refused: str, ask: Any) -> None:
    """Return once a request that ends no process is refused."""
    end_s = time.monotonic() + support.WAIT_S
    while (await ask(mesh, name, poisons.HARMLESS))[0] != refused:
        assert time.monotonic() < end_s, f"{name} is still run"


def restarts(mesh: running.Mesh) -> int:
    return sum(worker["restarts"] for worker in mesh.workers().values())


def worker_pids(mesh: running.Mesh) -> dict[str, int]:
    return {id_: worker["pid"] for id_, worker in mesh.workers().items()}


def reasons(mesh: running.Mesh, name: str) -> list[str]:
    return [item["reason"] for item in mesh.status()["quarantined"] if item["model"] == name]


def wait_until_ready(mesh: running.Mesh) -> None:
    support.wait_until(lambda: mesh.status()["state"] == "ready", READY_S, "all workers are back")


@pytest.mark.parametrize(("kind", "where"), CASES)
async def test_a_poisoned_model_costs_one_worker_and_no_request_of_others(
    mesh: running.Mesh, kind: str, where: str
) -> None:
    name, cause = f"{kind}-{where}", poisons.KINDS[kind][1]
    ask = ask_rest if (list(poisons.KINDS).index(kind) + (where == "load")) % 2 else ask_grpc
    refused = "424" if ask is ask_rest else "FAILED_PRECONDITION"
    wait_until_ready(mesh)
    before = restarts(mesh)
    async with traffic.flowing(mesh.listen, traffic.zipf(MODELS), PER_S) as flow:
        await asyncio.sleep(0.5)
        begun_s = time.monotonic()
        # Several at once: each is tried again elsewhere, and none may end a second worker.
        outcomes = await asyncio.gather(*(ask(mesh, name, poisons.POISON) for _ in range(4)))
        answered_s = time.monotonic() - begun_s
        for status, reason in outcomes:
            assert (status, cause in reason) == (refused, True), reason
            assert "in quarantine" in reason
        # Workers that have not heard of the verdict run the model alone until they have.
        await until_refused(mesh, name, refused, ask)
        await asyncio.to_thread(wait_until_ready, mesh)
        back_s = time.monotonic() - begun_s
        # The worker that refuses it tells the controller with its next report.
        await asyncio.to_thread(support.wait_until, lambda: reasons(mesh, name))
        assert [cause in reason for reason in reasons(mesh, name)] == [True]
        shown = mesh.model(name)
        assert (shown["state"], cause in shown["reason"]) == ("failed", True)
        # A release lets it try again, in a process of its own: no worker is lost.
        mesh.http.post(f"/mesh/v1/models/{name}/release").raise_for_status()
        assert (await ask(mesh, name, poisons.POISON))[0] == refused
    assert restarts(mesh) - before == 1
    assert flow.faults == []
    assert flow.answered > PER_S
    print(  # noqa: T201 - pytest -s shows the figures of docs/reliability.md
        f"{name}: {flow.answered} answered, 0 failed, slowest {flow.slowest_s:.2f} s, "
        f"poison answered in {answered_s:.2f} s, all back after {back_s:.1f} s"
    )


async def test_a_model_that_ran_beside_it_is_answered_and_goes_on(
    mesh: running.Mesh, tmp_path: Path
) -> None:
    names = [f"beside-{number}" for number in range(6)]
    for name in (*names, "culprit"):
        is_culprit = name == "culprit"
        # Its bytes are its own: those of the case of `os.abort()` are in quarantine already.
        end = "os.abort()  # the culprit" if is_culprit else "time.sleep(1.5)"
        uri = poisons.write(tmp_path / name, "predict", end)
        body = {"uri": uri, "runtime": "python", "trust": True}
        mesh.http.put(f"/mesh/v1/models/{name}", json=body).raise_for_status()
        assert (await ask_rest(mesh, name, poisons.HARMLESS))[0] == "200"
    wait_until_ready(mesh)
    home = mesh.model("culprit")["worker"]
    beside = [name for name in names if mesh.model(name)["worker"] == home]
    assert beside, "chance has put all models on other workers"
    before = restarts(mesh)
    slow = [tasks.spawn(ask_rest(mesh, name, poisons.POISON), name) for name in beside]
    await asyncio.sleep(0.5)
    assert (await ask_rest(mesh, "culprit", poisons.POISON))[0] == "424"
    for status, answer in await asyncio.gather(*slow):
        assert status == "200", answer
        assert f"{2 * poisons.POISON}" in answer
    held = {item["model"] for item in mesh.status()["quarantined"]}
    assert ("culprit" in held, held & set(names)) == (True, set())
    wait_until_ready(mesh)
    assert restarts(mesh) - before == 1


async def test_a_load_by_hand_ends_one_worker_and_then_tells_why(
    mesh: running.Mesh, tmp_path: Path
) -> None:
    wait_until_ready(mesh)
    before = restarts(mesh)
    body = {"uri": poisons.write(tmp_path / "loaded", "load", "os._exit(4)"), "runtime": "python"}
    mesh.http.put("/mesh/v1/models/loaded", json={**body, "trust": True}).raise_for_status()
    answers = [mesh.http.post("/mesh/v1/models/loaded/load", timeout=60) for _ in range(3)]
    assert answers[-1].status_code == 424, [answer.text for answer in answers]
    assert "exit code 4" in answers[-1].text
    wait_until_ready(mesh)
    assert restarts(mesh) - before == 1


async def test_another_artifact_ends_a_quarantine(mesh: running.Mesh, tmp_path: Path) -> None:
    name = "abort-predict"
    held = [item["model"] for item in mesh.status()["quarantined"]]
    assert name in held
    body = {
        "uri": poisons.write(tmp_path / "mended", "nowhere"),
        "runtime": "python",
        "trust": True,
    }
    # The configuration owns the name, so the mended model is one of the API's.
    mesh.http.put("/mesh/v1/models/mended", json=body).raise_for_status()
    assert (await ask_rest(mesh, "mended", poisons.POISON))[0] == "200"


async def test_quarantines_outlive_the_controller_and_all_workers(mesh: running.Mesh) -> None:
    held = mesh.status()["quarantined"]
    assert held
    pids = set(worker_pids(mesh).values())
    controller = mesh.status()["controller"]["pid"]
    for pid in (controller, *pids):
        os.kill(pid, signal.SIGKILL)
    support.wait_until(lambda: _is_new(mesh, pids), READY_S, "all is back")
    assert mesh.status()["quarantined"] == held
    wait_until_ready(mesh)
    # Not `restarts`: that the new controller counts a start after the kills is no death of now.
    before = worker_pids(mesh)
    assert (await ask_rest(mesh, "segfault-predict", poisons.POISON))[0] == "424"
    wait_until_ready(mesh)
    assert worker_pids(mesh) == before


def _is_new(mesh: running.Mesh, pids: set[int]) -> bool:
    answer = mesh.http.get("/mesh/v1/status")
    if answer.status_code != 200 or answer.json()["state"] != "ready":
        return False
    return not pids & set(worker_pids(mesh).values())

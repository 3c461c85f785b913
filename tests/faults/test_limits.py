"""Models that never answer, beside requests for others: callers hear of it, workers are renewed."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests import support
from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(300)]

MODELS = 10
PER_S = 50
SPIN, HARMLESS = 9.0, 0.5
"""The first values of a request whose run never ends, and of one that is answered at once."""

SOURCE = """
import time

class Model:
    inputs = [("x", "FP32", [-1, 8])]
    outputs = [("y", "FP32", [-1, 8])]

    def predict(self, inputs):  # {name}
        while inputs["x"][0, 0] > 1:
            {what}
        return {{"y": inputs["x"] * 2}}
"""
FREE = [f"free-{number}" for number in range(7)]
"""So many that one of two workers has four: the sixteenth part of its threads."""


def hanging(folder: Path, name: str, what: str = "time.sleep(0.1)", **fields: Any) -> Any:
    """Return the `models:` entry of a model that does `what` for ever."""
    (folder / name).mkdir()
    # The names make their bytes differ: equal models would be one copy, and one suspect.
    (folder / name / "model.py").write_text(textwrap.dedent(SOURCE).format(name=name, what=what))
    return {"name": name, "uri": str(folder / name), "runtime": "python", "trust": True, **fields}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("models")
    limit = {"predict_timeout_s": 1.0}
    models = (
        hanging(folder, "limited", "pass", **limit),
        hanging(folder, "alone", "pass", isolate="process", **limit),
        *(hanging(folder, name) for name in FREE),
    )
    with traffic.serving(folder, MODELS, *models) as started:
        yield started


async def ask_rest(mesh: running.Mesh, name: str, value: float, **headers: str) -> tuple[str, str]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [value] * 8}
    answer = await asyncio.to_thread(
        mesh.http.post,
        f"/v2/models/{name}/infer",
        json={"inputs": [tensor]},
        headers={key.replace("_", "-"): text for key, text in headers.items()},
        timeout=60,
    )
    return str(answer.status_code), answer.text


async def ask_grpc(
    mesh: running.Mesh, name: str, value: float, timeout_s: float | None = None
) -> tuple[str, str]:
    asked = pb.ModelInferRequest(model_name=name)
    asked.inputs.add(name="x", datatype="FP32", shape=(1, 8))
    asked.raw_input_contents.append(np.full(8, value, np.float32).tobytes())
    async with grpc.aio.insecure_channel(mesh.listen) as channel:
        stub: Any = rpc.GRPCInferenceServiceStub(channel)
        try:
            await stub.ModelInfer(asked, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
    return "200", ""


async def test_a_run_over_its_limit_is_answered_and_no_request_of_others_fails(
    mesh: running.Mesh,
) -> None:
    async with traffic.flowing(mesh.listen, traffic.zipf(MODELS), PER_S) as flow:
        for name in ("alone", "limited"):
            assert (await ask_rest(mesh, name, HARMLESS))[0] == "200"
        answers = await asyncio.gather(
            ask_rest(mesh, "limited", SPIN),
            ask_rest(mesh, "alone", SPIN),
            ask_grpc(mesh, "limited", SPIN),
        )
        assert [status for status, _ in answers] == ["504", "504", "DEADLINE_EXCEEDED"]
        assert all("within 1 s (predict_timeout_s)" in text for _, text in answers)
        # In a process of its own it is back at once, in the worker when the run counts as hung.
        for name in ("alone", "limited"):
            assert (await ask_rest(mesh, name, HARMLESS))[0] == "200"
    assert (flow.faults, flow.answered > PER_S) == ([], True)
    assert sum(hung["runs"] for hung in mesh.status()["hung"]) == 1
    assert mesh.model("limited")["hung_runs"] == 1
    assert "limited" in mesh.cli("status", "--endpoint", mesh.listen).stdout


async def test_a_worker_that_loses_threads_to_models_without_a_limit_is_replaced(
    mesh: running.Mesh,
) -> None:
    before = {id_: worker["pid"] for id_, worker in mesh.workers().items()}
    async with traffic.flowing(mesh.listen, traffic.zipf(MODELS), PER_S) as flow:
        # The two ways in which a caller says how long it waits.
        rest = [ask_rest(mesh, name, SPIN, grpc_timeout="1S") for name in FREE[:3]]
        calls = [ask_grpc(mesh, name, SPIN, timeout_s=1.0) for name in FREE[3:]]
        statuses = [status for status, _ in await asyncio.gather(*rest, *calls)]
        assert statuses == 3 * ["504"] + 4 * ["DEADLINE_EXCEEDED"]
        begun_s = time.monotonic()
        await asyncio.to_thread(support.wait_until, lambda: bool(renewed(mesh, before)), 150.0)
        took_s = time.monotonic() - begun_s
        for name in FREE:
            assert (await ask_rest(mesh, name, HARMLESS))[0] == "200"
    assert (flow.faults, flow.answered > PER_S) == ([], True)
    print(  # noqa: T201 - pytest -s shows the figures of docs/reliability.md
        f"{flow.answered} answered, slowest {flow.slowest_s:.2f} s, renewed after {took_s:.1f} s"
    )


def renewed(mesh: running.Mesh, before: dict[str, int]) -> list[str]:
    """Return the workers that are ready again, in other processes than before."""
    if mesh.http.get("/mesh/v1/status").json().get("state") != "ready":
        return []
    return [id_ for id_, worker in mesh.workers().items() if worker["pid"] != before[id_]]

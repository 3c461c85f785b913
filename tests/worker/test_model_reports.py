"""A worker's reports have the figures of each model, whatever way its requests came and ended."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from meshserve import tasks
from meshserve.core.values import model, model_figures
from meshserve.worker import worker
from tests import support
from tests.worker import helpers

A = model.ModelId("doubled")
ROWS = {"instances": [[1, 2], [3, 4]]}
SEVENS = ((7.0, 7.0),)
SLOW = """
    import pathlib, time

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]
        batchable = True

        def predict(self, inputs):
            # Not the runs of the load itself.
            while (inputs["x"] == 7).any() and not pathlib.Path(GATE).exists():
                time.sleep(0.01)
            return {"y": inputs["x"]}
"""


class Reader:
    """Adds up what a worker's reports tell, as the controller does."""

    def __init__(self, pool_worker: worker.PoolWorker) -> None:
        self.worker = pool_worker
        self._since = 0
        self.figures: dict[model.ModelId, model_figures.ModelFigures] = {}
        self.busy: dict[model.ModelId, model_figures.BusyModel] = {}

    def read(self, about: model.ModelId = A) -> model_figures.ModelFigures:
        report = self.worker.report(self._since)
        self._since = report.number
        for id_, figures in report.figures.figures:
            self.figures.setdefault(id_, model_figures.ModelFigures()).add(figures)
        self.busy = {busy.id: busy for busy in report.busy}
        return self.figures.get(about, model_figures.ModelFigures())


@pytest.fixture
def reader(pool_worker: worker.PoolWorker) -> Reader:
    return Reader(pool_worker)


async def grpc(http: httpx.AsyncClient, message: Any) -> httpx.Response:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return await http.post(helpers.INFER, content=body, headers=helpers.CALL)


async def test_each_way_of_asking_counts_once_with_its_bytes(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    v2 = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    answers = [
        await grpc(http, helpers.infer()),
        await http.post("/v1/models/doubled:predict", json=ROWS),
        await http.post("/v2/models/doubled/infer", json=v2),
        await http.post("/v2/models/doubled/versions/1/infer", json=v2),
    ]
    # No predictions: the questions of clients before and beside them.
    for path in ("/v2/models/doubled", "/v2/models/doubled/ready", "/v1/models/doubled"):
        (await http.get(path)).raise_for_status()
    figures = reader.read()
    assert (figures.requests, figures.failures) == (4, {})
    assert figures.request_bytes == sum(len(answer.request.content) for answer in answers)
    assert figures.answer_bytes == sum(len(answer.content) for answer in answers)
    assert (figures.cold_calls, figures.loads) == (1, 1)
    assert figures.latency_s >= figures.cold_s >= figures.load_s > 0
    assert reader.busy == {}


async def test_failures_count_for_their_model_by_status(
    http: httpx.AsyncClient, reader: Reader, pool_worker: worker.PoolWorker
) -> None:
    missing = model.ModelId("missing")
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("missing", "nowhere")))
    await grpc(http, helpers.infer(rows=[1.0]))
    await grpc(http, helpers.infer(rows=[[-1.0, 1]]))
    await http.post("/v1/models/doubled:predict", json={"instances": [[-1, 2]]})
    await http.post("/v1/models/doubled:predict", content=b"{")
    await http.post("/v2/models/doubled/infer", content=b"{")
    await grpc(http, helpers.infer("missing"))
    await http.post("/v1/models/missing:predict", json=ROWS)
    # What nobody has registered has no series: anybody could make any number of them.
    for name in ("nobody", "x" * 1000):
        await grpc(http, helpers.infer(name))
        await http.post(f"/v1/models/{name}:predict", json=ROWS)
        await http.post(f"/v2/models/{name}/infer", json={})
    await grpc(http, b"\xff")
    figures = reader.read()
    assert (figures.requests, figures.failures) == (5, {400: 3, 500: 2})
    assert reader.read(missing).failures == {424: 2}
    assert set(reader.figures) == {A, missing}


async def test_a_worker_that_is_asked_in_vain_for_a_report_tells_it_again(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker
) -> None:
    await grpc(http, helpers.infer())
    first = pool_worker.report().figures
    await grpc(http, helpers.infer())
    lost = pool_worker.report(0)
    assert lost.figures == first
    after = pool_worker.report(lost.number)
    assert (after.figures.number, after.figures.figures[0][1].requests) == (2, 1)
    assert pool_worker.report(after.number).figures.figures == ()


async def test_requests_in_flight_and_queued_are_told_apart(
    http: httpx.AsyncClient,
    reader: Reader,
    pool_worker: worker.PoolWorker,
    storage: helpers.FakeStorage,
) -> None:
    slow, gate = model.ModelId("slow"), storage.folder / "gate"
    uri = storage.put("slow", SLOW.replace("GATE", repr(str(gate))))
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("slow", uri, batching=True)))
    # One after the other, for the first request must not be joined with others.
    storage.gate.clear()
    asked = [tasks.spawn(grpc(http, helpers.infer("slow", SEVENS)), "slow", is_awaited=True)]
    await wait_for(reader, slow, in_flight=1, queued=1)
    storage.gate.set()
    await wait_for(reader, slow, in_flight=1, queued=0)
    for count in (2, 3):
        asked.append(
            tasks.spawn(grpc(http, helpers.infer("slow", SEVENS)), "slow", is_awaited=True)
        )
        await wait_for(reader, slow, in_flight=count, queued=count - 1)
    left = asked.pop()
    left.cancel()
    await wait_for(reader, slow, in_flight=2, queued=1)
    gate.touch()
    await asyncio.gather(*asked)
    await wait_for(reader, slow)
    figures = reader.read(slow)
    assert (figures.requests, figures.failures, figures.cold_calls) == (3, {499: 1}, 1)


async def wait_for(reader: Reader, id_: model.ModelId, in_flight: int = 0, queued: int = 0) -> None:
    def is_so() -> bool:
        reader.read()
        busy = reader.busy.get(id_, model_figures.BusyModel(id_, 0, 0))
        return (busy.in_flight, busy.queued) == (in_flight, queued)

    await support.wait_until_async(is_so, what=f"{in_flight} in flight, {queued} queued")


async def test_joined_rows_are_counted(
    http: httpx.AsyncClient,
    reader: Reader,
    pool_worker: worker.PoolWorker,
    storage: helpers.FakeStorage,
) -> None:
    slow, gate = model.ModelId("slow"), storage.folder / "gate"
    uri = storage.put("slow", SLOW.replace("GATE", repr(str(gate))))
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("slow", uri, batching=True)))
    asked = []
    for count in (1, 2, 3):
        call = grpc(http, helpers.infer("slow", [[7.0, 7.0], [7.0, 7.0]]))
        asked.append(tasks.spawn(call, "slow", is_awaited=True))
        await wait_for(reader, slow, in_flight=count, queued=count - 1)
    gate.touch()
    await asyncio.gather(*asked)
    await wait_for(reader, slow)
    # The first one ran alone, the two that waited meanwhile together.
    assert reader.read(slow).joined_rows == 4


async def test_loads_and_evictions_of_a_model_add_up(
    http: httpx.AsyncClient, reader: Reader, pool_worker: worker.PoolWorker
) -> None:
    for _ in range(3):
        await grpc(http, helpers.infer())
        pool_worker.host.unload(A)
        await support.wait_until_async(lambda: not pool_worker.host.footprint(A).host_bytes)
    await pool_worker.ensure_loaded(A, support.WAIT_S)
    figures = reader.read()
    # An unload by request is no eviction, and the mesh's own load no request that waited.
    assert (figures.loads, figures.cold_calls, figures.evictions) == (4, 3, 0)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model, reports
from meshserve.protocol import inference
from meshserve.worker import worker_report
from meshserve.worker.http import worker_app
from meshserve.worker.models import model_host
from tests import support
from tests.worker import helpers

ID = model.ModelId("m")


@pytest.fixture
async def host(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> model_host.ModelHost:
    new_host = hosting()
    helpers.apply(new_host, *helpers.declared(helpers.spec("m", storage.put("m"))))
    return new_host


async def test_counters_are_the_hosts_and_the_apps(host: model_host.ModelHost) -> None:
    await host.ensure_loaded(ID, 20)
    load = worker_app.WorkerLoad(requests=7, failures=2, in_flight=1)
    assert worker_report.counters(host, load) == reports.Counters(
        requests=7, failures=2, hits=0, misses=1, loads=1, load_failures=0, evictions=0, in_flight=1
    )


async def test_measurements_are_reported_once(host: model_host.ModelHost) -> None:
    await host.ensure_loaded(ID, 20)
    [learned] = worker_report.take_measurements(host)
    assert learned.id == ID
    assert learned.measured.footprint == host.footprint(ID)
    assert worker_report.take_measurements(host) == ()


async def test_copies_are_reported_with_their_state(host: model_host.ModelHost) -> None:
    assert worker_report.copies(host, [ID]) == ()
    await host.ensure_loaded(ID, 20)
    host.set_pinned(ID, is_pinned=True)
    [copy] = worker_report.copies(host, [ID])
    assert (copy.id, copy.state, copy.pinned, copy.reason) == (ID, "ready", True, "")
    assert copy.footprint == host.footprint(ID)
    assert worker_report.copies(host, [model.ModelId("nobody")]) == ()


async def test_a_failed_copy_has_its_reason(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.failure = errors.LoadFailed("the storage is empty")
    with pytest.raises(errors.LoadFailed):
        await host.ensure_loaded(ID, 20)
    [copy] = worker_report.copies(host, [ID])
    assert (copy.state, copy.reason) == ("failed", "the storage is empty")


SUMMING = """
    import time

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]
        batchable = True

        def predict(self, inputs):
            time.sleep(0.02)
            return {"y": inputs["x"].cumsum(0)}
"""


async def test_a_model_that_mixes_rows_is_reported_logged_and_counted(
    host: model_host.ModelHost,
    storage: helpers.FakeStorage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    summing = helpers.spec("sums", storage.put("sums", SUMMING), "7", batching=True)
    helpers.apply(host, *helpers.declared(summing))
    await host.ensure_loaded(summing.id, 20)
    [copy] = worker_report.copies(host, [summing.id])
    assert (copy.joining, copy.joining_reason) == ("joined", "")
    pages = worker_report.ReportPages(host)
    pages.next(0)
    x = inference.WireTensor("FP32", np.ones((1, 2), np.float32))
    calls = [inference.InferCall("sums", "", "", {"x": x}) for _ in range(6)]
    expires_s = asyncio.get_running_loop().time() + 20
    await asyncio.gather(*[cast("Any", host.infer(call, expires_s)) for call in calls])
    [copy] = pages.next(1).copies
    difference = "output 'y' differs by up to"
    assert copy.joining == "stopped"
    assert difference in copy.joining_reason
    assert "sums:7: requests are joined no more" in caplog.text
    assert difference in caplog.text
    assert host.stats[summing.id].joins_stopped == 1
    host.unload(summing.id)
    await host.ensure_loaded(summing.id, 20)
    [copy] = worker_report.copies(host, [summing.id])
    assert copy.joining == "stopped"
    # The mesh is told until its catalog says so.
    [stop] = host.proofs.stops()
    assert difference in stop.reason
    helpers.apply(host, stop)
    assert host.proofs.stops() == ()


async def test_joining_that_stopped_on_another_worker_stops_here(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    summing = helpers.spec("sums", storage.put("sums", SUMMING), "7", batching=True)
    finder, other = hosting(), hosting()
    for host in (finder, other):
        helpers.apply(host, *helpers.declared(summing))
        await host.ensure_loaded(summing.id, 60)
    x = inference.WireTensor("FP32", np.ones((1, 2), np.float32))
    expires_s = asyncio.get_running_loop().time() + 60

    async def ask(host: model_host.ModelHost, count: int) -> list[Any]:
        calls = [inference.InferCall("sums", "", "", {"x": x}) for _ in range(count)]
        replies = [cast("Any", host.infer(call, expires_s)) for call in calls]
        return [reply.outputs["y"].tolist() for reply in await asyncio.gather(*replies)]

    assert await ask(finder, 6) == [[[1, 1]]] * 6
    [stop] = finder.proofs.stops()
    pages = worker_report.ReportPages(other)
    pages.next(0)
    helpers.apply(other, stop)
    [copy] = pages.next(1).copies
    assert (copy.joining, copy.joining_reason) == ("stopped", stop.reason)
    assert await ask(other, 6) == [[[1, 1]]] * 6
    assert other.stats[summing.id].joins_stopped == 0
    other.unload(summing.id)
    await other.ensure_loaded(summing.id, 60)
    [copy] = worker_report.copies(other, [summing.id])
    assert copy.joining == "stopped"


async def test_changes_come_in_pages(
    host: model_host.ModelHost, storage: helpers.FakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_report, "PAGE_COPIES", 2)
    ids = [model.ModelId(name) for name in "abc"]
    helpers.apply(
        host,
        *helpers.declared(
            *(
                helpers.spec(
                    id_.name, storage.put(id_.name, f"{helpers.DOUBLED}    # {id_.name}\n")
                )
                for id_ in ids
            )
        ),
    )
    pages = worker_report.ReportPages(host)
    assert pages.next(0) == worker_report.ReportPage(1, 0, (), (), has_more=False)
    for id_ in ids:
        await host.ensure_loaded(id_, 20)
    first = pages.next(1)
    second = pages.next(2)
    assert (len(first.copies), first.has_more, len(second.copies), second.has_more) == (
        2,
        True,
        1,
        False,
    )
    assert {copy.id for copy in first.copies + second.copies} == set(ids)
    assert pages.next(3) == worker_report.ReportPage(4, 3, (), (), has_more=False)
    host.unload(ids[0])
    await host.ensure_loaded(ids[1], 20)
    await support.wait_until_async(lambda: not host.footprint(ids[0]).host_bytes, what="unloaded")
    last = pages.next(4)
    assert ([copy.id for copy in last.copies], last.gone) == ([ids[1]], (ids[0],))


async def test_after_a_missed_page_all_copies_come_again(host: model_host.ModelHost) -> None:
    pages = worker_report.ReportPages(host)
    await host.ensure_loaded(ID, 20)
    assert [pages.next(number).since for number in (0, 1, 1, 3)] == [0, 1, 0, 3]
    assert [copy.id for copy in pages.next(2).copies] == [ID]


async def test_events_are_reported_until_a_report_is_known_to_have_come(
    host: model_host.ModelHost,
) -> None:
    pages = worker_report.ReportEvents(host)
    await host.ensure_loaded(ID, 20)
    [loaded] = pages.next(0, host.residency.copies[next(iter(host.residency.copies))].loaded_s + 2)
    assert (loaded.kind, loaded.id, loaded.ago_s) == ("loaded", ID, 2.0)
    assert pages.next(1, 0.0) == ()
    host.unload(ID)
    assert [event.kind for event in pages.next(2, 0.0)] == ["unloaded"]
    assert [event.kind for event in pages.next(0, 0.0)] == ["loaded", "unloaded"]

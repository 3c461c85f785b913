from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from meshserve.core.values import catalog, catalog_sync, model
from meshserve.worker import worker
from tests.worker import bench

ID = model.ModelId("doubled")


def sockets():
    """The Unix sockets that this machine has."""
    return Path("/proc/net/unix").read_text()


async def test_it_listens_on_a_socket_and_a_port(one):
    report = one.report()
    assert (report.worker_id, report.pid, report.state, report.budget) == (
        "pool-0",
        os.getpid(),
        "ready",
        bench.MEMORY,
    )
    assert one.address.socket_path in sockets()


async def test_its_port_answers_too(tmp_path, shelf):
    short = worker.PoolWorker(model.ServerAddress("w", str(tmp_path)), bench.settings(), shelf)
    endpoint = await short.start()
    async with httpx.AsyncClient(base_url=f"http://{endpoint.host}:{endpoint.port}") as client:
        assert (await client.get("/healthz")).status_code == 503
        short.apply(catalog_sync.SyncStep(1, (), is_first=True, is_last=True))
        assert (await client.get("/healthz")).status_code == 200
    await short.stop()
    assert endpoint.socket_path not in sockets()


async def test_a_missed_step_is_a_gap_and_changes_nothing(one):
    before = one.report().revision
    with pytest.raises(catalog_sync.MissedStep):
        one.apply(catalog_sync.SyncStep(before + 2, (catalog.ModelWithdrawn(ID),)))
    assert one.report().revision == before
    await one.ensure_loaded(ID, 20)


async def test_its_report_tells_of_what_it_has(one):
    assert one.report().copies == ()
    await one.ensure_loaded(ID, 20)
    report = one.report()
    assert [copy.id for copy in report.copies] == [ID]
    assert report.booked.host_bytes == one.host.footprint(ID).host_bytes
    assert [learned.id for learned in report.measured] == [ID]
    assert one.copies((ID,))[0].state == "ready"


async def test_draining_without_requests_is_at_once(one):
    await one.drain(20)
    assert one.report().state == "draining"

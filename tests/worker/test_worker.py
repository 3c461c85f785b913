from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from meshserve.core.values import catalog, catalog_sync, model
from meshserve.worker import worker
from tests.worker import helpers

ID = model.ModelId("doubled")


def sockets():
    """The Unix sockets that this machine has."""
    return Path("/proc/net/unix").read_text()


async def test_it_listens_on_a_socket_and_a_port(pool_worker):
    report = pool_worker.report()
    assert (report.worker_id, report.pid, report.state, report.budget) == (
        "pool-0",
        os.getpid(),
        "ready",
        helpers.MEMORY,
    )
    assert pool_worker.address.socket_path in sockets()


async def test_the_port_is_served_too(tmp_path, storage):
    short = worker.PoolWorker(model.ServerAddress("w", str(tmp_path)), helpers.settings(), storage)
    endpoint = await short.start()
    async with httpx.AsyncClient(base_url=f"http://{endpoint.host}:{endpoint.port}") as client:
        assert (await client.get("/healthz")).status_code == 503
        short.apply(catalog_sync.SyncStep(1, (), is_first=True, is_last=True))
        assert (await client.get("/healthz")).status_code == 200
    await short.stop()
    assert endpoint.socket_path not in sockets()


async def test_a_missed_step_is_a_gap_and_changes_nothing(pool_worker):
    before = pool_worker.report().revision
    with pytest.raises(catalog_sync.MissedStep):
        pool_worker.apply(catalog_sync.SyncStep(before + 2, (catalog.ModelWithdrawn(ID),)))
    assert pool_worker.report().revision == before
    await pool_worker.ensure_loaded(ID, 20)


async def test_a_report_has_copies_and_measurements(pool_worker):
    assert pool_worker.report().copies == ()
    await pool_worker.ensure_loaded(ID, 20)
    report = pool_worker.report()
    assert [copy.id for copy in report.copies] == [ID]
    assert report.booked.host_bytes == pool_worker.host.footprint(ID).host_bytes
    assert [learned.id for learned in report.measured] == [ID]
    assert pool_worker.copies((ID,))[0].state == "ready"


async def test_draining_without_requests_ends_at_once(pool_worker):
    await pool_worker.drain(20)
    assert pool_worker.report().state == "draining"

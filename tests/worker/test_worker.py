from __future__ import annotations

import asyncio
import functools
import os
import time
from pathlib import Path

import httpx
import psutil
import pytest

from meshserve.core.values import catalog, catalog_sync, model
from meshserve.worker import worker
from meshserve.worker.http import worker_app
from tests import support
from tests.worker import helpers

ID = model.ModelId("doubled")


def sockets() -> str:
    """The Unix sockets that this machine has."""
    return Path("/proc/net/unix").read_text()


async def test_it_listens_on_a_socket(pool_worker: worker.PoolWorker) -> None:
    report = pool_worker.report()
    assert (report.worker_id, report.pid, report.state, report.budget) == (
        "pool-0",
        os.getpid(),
        "ready",
        helpers.MEMORY,
    )
    assert pool_worker.address.socket_path in sockets()


async def test_a_worker_that_no_other_node_asks_has_no_port(
    tmp_path: Path, storage: helpers.FakeStorage
) -> None:
    address = model.ServerAddress("w", str(tmp_path))
    alone = worker.PoolWorker(address, helpers.settings(), storage)
    before = psutil.Process().net_connections("tcp")
    endpoint = await alone.start()
    assert (endpoint.host, endpoint.port) == ("", 0)
    assert psutil.Process().net_connections("tcp") == before
    await alone.stop()


@pytest.mark.parametrize("is_over_tcp", [True, False], ids=["tcp", "unix"])
async def test_for_other_nodes_it_listens_on_a_port_and_asks_for_the_secret(
    tmp_path: Path, storage: helpers.FakeStorage, is_over_tcp: bool
) -> None:
    address = model.ServerAddress("w", str(tmp_path), host="127.0.0.1", secret="s" * 43)
    assert "sss" not in repr(address)
    short = worker.PoolWorker(address, helpers.settings(), storage)
    endpoint = await short.start()
    transport = httpx.AsyncHTTPTransport(uds=None if is_over_tcp else endpoint.socket_path)
    url = f"http://{endpoint.host}:{endpoint.port}"
    async with httpx.AsyncClient(base_url=url, transport=transport) as client:
        for path in ("/healthz", "/metrics", "/v2/models/doubled"):
            assert (await client.get(path)).status_code == 401
        client.headers["x-mesh-secret"] = address.secret
        assert (await client.get("/healthz")).status_code == 503
        short.apply(catalog_sync.SyncStep(1, (), is_first=True, is_last=True))
        assert (await client.get("/healthz")).status_code == 200
    await short.stop()
    assert endpoint.socket_path not in sockets()


async def test_a_missed_step_is_a_gap_and_changes_nothing(pool_worker: worker.PoolWorker) -> None:
    before = pool_worker.report().revision
    with pytest.raises(catalog_sync.MissedStep):
        pool_worker.apply(catalog_sync.SyncStep(before + 2, (catalog.ModelWithdrawn(ID),)))
    assert pool_worker.report().revision == before
    await pool_worker.ensure_loaded(ID, 20)


async def test_a_report_has_copies_and_measurements(pool_worker: worker.PoolWorker) -> None:
    assert pool_worker.report().copies == ()
    await pool_worker.ensure_loaded(ID, 20)
    report = pool_worker.report()
    assert [copy.id for copy in report.copies] == [ID]
    assert report.booked.host_bytes == pool_worker.host.footprint(ID).host_bytes
    assert [learned.id for learned in report.measured] == [ID]
    assert pool_worker.copies((ID,))[0].state == "ready"


async def test_draining_without_requests_ends_at_once(pool_worker: worker.PoolWorker) -> None:
    await pool_worker.drain(20)
    assert pool_worker.report().state == "draining"


NAP_S = 0.1
NAPPING = """
    import time

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]
        runs = 0

        def predict(self, inputs):
            Model.runs += 1
            time.sleep(0.1)
            return {"y": inputs["x"] * 0 + Model.runs}
"""
GRPC_CALL = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n" % (
    helpers.INFER.encode()
)
REST_CALL = b"POST /v2/models/nap/infer HTTP/1.1\r\nhost: x\r\n"
V1_CALL = b"POST /v1/models/nap:predict HTTP/1.1\r\nhost: x\r\n"
TENSOR = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
ABANDONED_CALLS = [
    pytest.param(GRPC_CALL, helpers.infer("nap").SerializeToString(), id="gRPC"),
    pytest.param(REST_CALL, TENSOR, id="V2"),
    pytest.param(V1_CALL, b'{"instances": [[1, 2]]}', id="V1"),
]


async def abandon(pool_worker: worker.PoolWorker, head: bytes, body: bytes, count: int) -> None:
    """Send calls on connections of their own, and close these once all calls wait."""
    load = pool_worker.app.load
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_unix_connection(pool_worker.address.socket_path)
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        writers.append(writer)
    await support.wait_until_async(
        lambda: load.in_flight >= count - 2, support.WAIT_S, "the calls wait"
    )
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(("head", "body"), ABANDONED_CALLS)
async def test_calls_whose_callers_left_are_not_run(
    http: httpx.AsyncClient,
    pool_worker: worker.PoolWorker,
    storage: helpers.FakeStorage,
    head: bytes,
    body: bytes,
) -> None:
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("nap", storage.put("nap", NAPPING))))
    predict = functools.partial(http.post, "/v1/models/nap:predict", json={"instances": [[1, 2]]})
    runs_before = (await predict()).json()["predictions"][0][0]
    began_s = time.monotonic()
    await abandon(pool_worker, head, body, 200)
    runs_meanwhile = (time.monotonic() - began_s) / NAP_S
    # Those that had their turn while the callers were there, two that were begun, and this one.
    assert (await predict()).json()["predictions"][0][0] <= runs_before + runs_meanwhile + 3
    load = pool_worker.app.load
    await support.wait_until_async(lambda: load.in_flight == 0, support.WAIT_S, "no call is left")
    assert load.failures_by_kind[worker_app.ABANDONED] >= 196
    assert [copy.leases for copy in pool_worker.host.residency.copies.values()] == [0]
    pool_worker.host.residency.check()


@pytest.mark.parametrize(("head", "body"), ABANDONED_CALLS)
async def test_a_model_is_not_loaded_for_callers_that_left(
    http: httpx.AsyncClient,
    pool_worker: worker.PoolWorker,
    storage: helpers.FakeStorage,
    head: bytes,
    body: bytes,
) -> None:
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("nap", storage.put("nap", NAPPING))))
    storage.gate.clear()
    await abandon(pool_worker, head, body, 200)
    load = pool_worker.app.load
    await support.wait_until_async(lambda: load.in_flight == 0, support.WAIT_S, "no call is left")
    storage.gate.set()
    (await http.get("/v2/models/doubled")).raise_for_status()
    assert pool_worker.host.residency.counts.loads == 1

from __future__ import annotations

import shutil
import tempfile

import httpx
import pytest

from meshserve.core.values import model
from meshserve.worker import worker
from meshserve.worker.models import model_host
from tests.worker import bench


@pytest.fixture
def shelf(tmp_path):
    return bench.Shelf(tmp_path)


@pytest.fixture
async def hosting(shelf):
    """Makes hosts; ends them."""
    made = []

    def make(**changes):
        made.append(model_host.ModelHost(bench.settings(**changes), shelf))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
async def one(shelf):
    """A worker that serves `doubled`, with nothing in memory."""
    folder = tempfile.mkdtemp(prefix="w-", dir="/tmp")
    made = worker.PoolWorker(model.ServerAddress("pool-0", folder), bench.settings(), shelf)
    await made.start()
    bench.told(made, *bench.declared(bench.spec("doubled", shelf.put("doubled"))))
    yield made
    await made.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def http(one):
    """A client of its Unix socket, as Envoy is one."""
    transport = httpx.AsyncHTTPTransport(uds=one.address.socket_path)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://worker", timeout=20
    ) as client:
        yield client

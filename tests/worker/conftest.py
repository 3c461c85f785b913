from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshserve.core.values import model
from meshserve.worker import worker
from meshserve.worker.models import model_host, surroundings
from tests import support
from tests.worker import helpers


@pytest.fixture
def storage(tmp_path: Path) -> helpers.FakeStorage:
    return helpers.FakeStorage(tmp_path)


@pytest.fixture
async def hosting(
    storage: helpers.FakeStorage,
) -> AsyncIterator[Callable[..., model_host.ModelHost]]:
    """Return a function that makes hosts, and close them."""
    hosts = []

    def make(**changes: Any) -> model_host.ModelHost:
        hosts.append(
            model_host.ModelHost(helpers.settings(**changes), surroundings.Surroundings(storage))
        )
        return hosts[-1]

    yield make
    # A load in a thread can't be ended, and answers to the loop.
    await support.wait_until_async(lambda: not any(host._leases._trials for host in hosts))
    for host in hosts:
        await host.close()


@pytest.fixture
async def pool_worker(storage: helpers.FakeStorage) -> AsyncIterator[worker.PoolWorker]:
    """A worker that serves `doubled`, with nothing in memory."""
    folder = tempfile.mkdtemp(prefix="w-", dir="/tmp")
    running = worker.PoolWorker(model.ServerAddress("pool-0", folder), helpers.settings(), storage)
    await running.start()
    helpers.apply(running, *helpers.declared(helpers.spec("doubled", storage.put("doubled"))))
    yield running
    await running.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def http(pool_worker: worker.PoolWorker) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the worker's Unix socket, which Envoy uses too."""
    transport = httpx.AsyncHTTPTransport(uds=pool_worker.address.socket_path)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://worker", timeout=60
    ) as client:
        yield client

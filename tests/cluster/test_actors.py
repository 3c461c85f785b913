"""The actors as plain objects in this process; in processes of their own, test_ray_cluster.py has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.cluster import actors
from meshserve.core.values import catalog_sync, desired, model, snapshots
from meshserve.gateway.envoy import envoy_process

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 7000)
SNAP = snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {})


class FakeWorker:
    """Starts, and has a gap before every step."""

    def __init__(self, where, told):
        self.where, self.told = where, told

    async def start(self):
        return ENDPOINT

    def apply(self, step):
        raise catalog_sync.MissedStep(f"before {step.revision}", retry_after_s=1.5)


class FakeGateway:
    """Remembers what it was asked for; fails with `failure` when told to follow."""

    def __init__(self, run_dir):
        self.run_dir, self.asked, self.failure = run_dir, [], None

    async def start(self, snap):
        self.asked.append(("start", snap))

    async def apply(self, snap):
        self.asked.append(("apply", snap))
        if self.failure is not None:
            raise self.failure

    def report(self):
        return {
            "pid": os.getpid(),
            "envoy_pid": None,
            "state": "ready",
            "listen": "here",
            "restarts": 3,
        }


@pytest.fixture
def worker(run_dir):
    where = model.ServerAddress("default-0", f"{run_dir}/new")
    return actors.WorkerActor(FakeWorker, where, desired.WorkerSettings())


@pytest.fixture
def gateway(run_dir):
    return actors.GatewayActor(FakeGateway, run_dir)


async def test_errors_of_ours_are_values_and_others_are_raised():
    @actors.told
    async def failing(error):
        raise error

    ours = errors.LoadFailed("it is corrupt", retry_after_s=2.5)
    assert await failing(ours) is ours
    with pytest.raises(KeyError):
        await failing(KeyError("x"))


async def test_what_is_no_error_is_returned():
    @actors.told
    async def twice(number):
        return 2 * number

    assert await twice(21) == 42


async def test_a_worker_that_was_not_started_is_unavailable(worker):
    told = [
        await worker.living(),
        await worker.report(0),
        await worker.send_changes(catalog_sync.SyncStep(1, ())),
    ]
    assert {(type(each), each.message) for each in told} == {
        (errors.Unavailable, "worker default-0 is not started")
    }
    assert await worker.stop() is None


async def test_a_worker_is_made_where_it_runs(worker):
    started = await worker.start()
    assert (started.worker_id, started.endpoint, started.pid) == (
        "default-0",
        ENDPOINT,
        os.getpid(),
    )
    assert worker._held.where.node == actors.node_id()
    assert worker._held.told == desired.WorkerSettings()


async def test_a_gap_is_told_as_one(worker):
    await worker.start()
    gap = await worker.send_changes(catalog_sync.SyncStep(9, ()))
    assert (type(gap), gap.message, gap.retry_after_s) == (catalog_sync.MissedStep, "before 9", 1.5)


async def test_a_gateway_that_serves_is_only_told_to_follow(gateway):
    first = await gateway.start(SNAP)
    assert await gateway.start(SNAP) == first
    assert [what for what, _ in gateway._gateway.asked] == ["start", "apply"]
    assert (first.node, first.envoy_pid, first.restarts) == (actors.node_id(), 0, 3)


@pytest.mark.parametrize("failure", [envoy_process.EnvoyFailed("bad words"), OSError("bad words")])
async def test_what_a_gateway_raises_is_told_in_words(gateway, failure):
    gateway._gateway.failure = failure
    told = await gateway.apply(SNAP)
    assert (type(told), told.message) == (errors.Unavailable, "the gateway: bad words")


def test_a_folder_of_sockets_is_for_nobody_else_and_taken_where_it_is_there(run_dir):
    for _ in range(2):
        actors.make_run_dir(f"{run_dir}/some/new")
    assert oct(Path(f"{run_dir}/some/new").stat().st_mode)[-3:] == "700"

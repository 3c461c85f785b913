from __future__ import annotations

from dataclasses import dataclass

import pytest

from meshserve import errors
from meshserve.core.values import catalog_sync, desired, snapshots
from meshserve.testing import fake_cluster
from tests.contracts import cluster as contract
from tests.core import world


@dataclass(frozen=True)
class FakeStage(contract.Stage):
    cluster: fake_cluster.FakeCluster


@pytest.fixture
async def stage() -> FakeStage:
    cluster = fake_cluster.FakeCluster()
    cluster.failing_loads["broken"] = "it is corrupt"
    return FakeStage(
        cluster, desired.WorkerSettings(), world.spec("good"), world.spec("broken"), "127.0.0.1:1"
    )


class TestFakeCluster(contract.ClusterContract):
    """It keeps to what a real cluster keeps to."""


async def test_a_start_fails_as_often_as_it_was_told_to(stage: FakeStage) -> None:
    stage.cluster.failing_starts[contract.WORKER] = 1
    with pytest.raises(errors.Unavailable):
        await stage.start()
    assert (await stage.start()).worker_id == contract.WORKER


async def test_a_step_gets_lost_as_often_as_it_was_told_to(stage: FakeStage) -> None:
    await stage.start_with()
    stage.cluster.lost_steps[contract.WORKER] = 1
    await stage.cluster.send_changes(contract.WORKER, catalog_sync.SyncStep(2, ()))
    with pytest.raises(catalog_sync.MissedStep):
        await stage.cluster.send_changes(contract.WORKER, catalog_sync.SyncStep(3, ()))


async def test_a_gateway_refuses_a_snapshot_as_often_as_it_was_told_to(
    stage: FakeStage,
) -> None:
    snap = snapshots.GatewaySnapshot("", "n1", {})
    await stage.cluster.start_gateway("n1", snap)
    stage.cluster.failing_configures["n1"] = 1
    with pytest.raises(errors.MeshError):
        await stage.cluster.configure_gateway("n1", snap)
    await stage.cluster.configure_gateway("n1", snap)

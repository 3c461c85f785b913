"""The actor as a plain object in this process; test_ray_cluster.py has it in its own process."""

from __future__ import annotations

import os
from typing import Any

import pytest

from meshserve import errors
from meshserve.cluster import actor_process, worker_actor
from meshserve.core.values import catalog_sync, desired, model

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 7000)


class FakeWorker:
    """A worker that starts, and refuses every step of the catalog."""

    def __init__(self, address: model.ServerAddress, settings: desired.WorkerSettings) -> None:
        self.address, self.settings = address, settings

    def note_crashes(self) -> None:
        """Journal nothing."""

    async def start(self) -> model.Endpoint:
        return ENDPOINT

    def apply(self, step: catalog_sync.SyncStep) -> None:
        raise errors.Unavailable(f"before {step.revision}", retry_after_s=1.5)


@pytest.fixture
def actor(run_dir: str) -> worker_actor.WorkerActor:
    make: Any = FakeWorker
    address = model.ServerAddress("default-0", f"{run_dir}/new")
    return worker_actor.WorkerActor(make, address, desired.WorkerSettings())


async def test_a_worker_that_was_not_started_is_unavailable(
    actor: worker_actor.WorkerActor,
) -> None:
    answers = [
        await actor.living(),
        await actor.report(0),
        await actor.send_changes(catalog_sync.SyncStep(1, ())),
    ]
    assert {(type(answer), str(answer)) for answer in answers} == {
        (errors.Unavailable, "worker default-0 is not started")
    }
    assert await actor.stop() is None


async def test_a_worker_is_built_on_the_node_of_its_actor(
    actor: worker_actor.WorkerActor,
) -> None:
    started = await actor.start()
    assert not isinstance(started, errors.MeshError)
    assert (started.worker_id, started.endpoint) == ("default-0", ENDPOINT)
    assert started.pid == os.getpid()
    worker: Any = actor._worker
    assert worker.address.node == actor_process.node_id()
    assert worker.settings == desired.WorkerSettings()


async def test_an_error_of_the_worker_keeps_its_class_and_wait(
    actor: worker_actor.WorkerActor,
) -> None:
    await actor.start()
    error = await actor.send_changes(catalog_sync.SyncStep(9, ()))
    assert isinstance(error, errors.Unavailable)
    assert (error.message, error.retry_after_s) == ("before 9", 1.5)

"""What each cluster must keep to: a subclass of `ClusterContract` has a `stage` fixture."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from meshserve import errors, tasks
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import catalog, catalog_sync, desired, events, model, snapshots

WORKER = "default-0"
WAIT_S = 60.0


@dataclass(frozen=True)
class Stage:
    """An empty cluster, models that it can and can't load, and a free address for a gateway."""

    cluster: cluster_control.Cluster
    settings: desired.WorkerSettings
    good: model.ModelSpec
    broken: model.ModelSpec
    listen: str

    async def start(self) -> events.WorkerStarted:
        started = await self.cluster.start_worker(WORKER, self.settings)
        assert started is not None
        return started

    async def start_with(self, *specs: model.ModelSpec) -> events.WorkerStarted:
        started = await self.start()
        for step in catalog_sync.full_steps(
            catalog_sync.split_changes([catalog.ModelDeclared(spec) for spec in specs]), 0
        ):
            await self.cluster.send_changes(WORKER, step)
        return started

    async def state_of(self, id_: model.ModelId) -> str:
        copies = await self.cluster.copies(WORKER, (id_,))
        return copies[0].state if copies else "absent"

    async def wait_for_state(self, id_: model.ModelId, state: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while await self.state_of(id_) != state:  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.02)


class ClusterContract:
    async def test_there_are_nodes_and_cores(self, stage: Stage) -> None:
        assert await stage.cluster.nodes() != ()
        assert (await stage.cluster.capacity()).cores >= 1

    async def test_a_started_worker_lives_and_listens(self, stage: Stage) -> None:
        started = await stage.start()
        (living,) = await stage.cluster.living_workers()
        assert (living.worker_id, living.settings, living.endpoint, living.pid) == (
            WORKER,
            stage.settings,
            started.endpoint,
            started.pid,
        )
        assert started.endpoint.port > 0

    async def test_a_worker_is_ready_from_its_first_whole_catalog_on(self, stage: Stage) -> None:
        await stage.start()
        assert not (await stage.cluster.living_workers())[0].is_ready
        assert (
            (await stage.cluster.report(WORKER, 0)).state,
            (await stage.cluster.report(WORKER, 0)).revision,
        ) == ("starting", 0)
        await stage.cluster.send_changes(
            WORKER, catalog_sync.full_steps(catalog_sync.split_changes([]), 0)[0]
        )
        assert (await stage.cluster.living_workers())[0].is_ready
        assert (
            (await stage.cluster.report(WORKER, 0)).state,
            (await stage.cluster.report(WORKER, 0)).revision,
        ) == ("ready", 1)

    async def test_a_step_after_a_missing_one_is_a_gap(self, stage: Stage) -> None:
        await stage.start_with(stage.good)
        with pytest.raises(catalog_sync.MissedStep):
            await stage.cluster.send_changes(WORKER, catalog_sync.SyncStep(9, ()))
        assert (await stage.cluster.report(WORKER, 0)).revision == 1

    async def test_a_model_is_loaded_reported_and_unloaded(self, stage: Stage) -> None:
        await stage.start_with(stage.good)
        assert await stage.state_of(stage.good.id) == "absent"
        await stage.cluster.ensure_loaded(WORKER, stage.good.id, WAIT_S)
        assert await stage.state_of(stage.good.id) == "ready"
        report = await stage.cluster.report(WORKER, 0)
        assert [copy.id for copy in report.copies] == [stage.good.id]
        assert (report.counters.loads, report.worker_id) == (1, WORKER)
        assert report.booked.host_bytes > 0
        await stage.cluster.unload(WORKER, stage.good.id)
        await stage.wait_for_state(stage.good.id, "absent")

    async def test_a_report_has_what_changed_since_the_one_before(self, stage: Stage) -> None:
        await stage.start_with(stage.good)
        first = await stage.cluster.report(WORKER, 0)
        await stage.cluster.ensure_loaded(WORKER, stage.good.id, WAIT_S)
        second = await stage.cluster.report(WORKER, first.number)
        assert (second.since, [copy.id for copy in second.copies], second.gone) == (
            first.number,
            [stage.good.id],
            (),
        )
        third = await stage.cluster.report(WORKER, second.number)
        assert (third.since, third.copies, third.gone) == (second.number, (), ())
        await stage.cluster.unload(WORKER, stage.good.id)
        await stage.wait_for_state(stage.good.id, "absent")
        fourth = await stage.cluster.report(WORKER, third.number)
        assert (fourth.copies, fourth.gone) == ((), (stage.good.id,))

    async def test_a_report_after_one_that_was_lost_has_everything(self, stage: Stage) -> None:
        await stage.start_with(stage.good)
        await stage.cluster.ensure_loaded(WORKER, stage.good.id, WAIT_S)
        first = await stage.cluster.report(WORKER, 0)
        await stage.cluster.report(WORKER, first.number)
        again = await stage.cluster.report(WORKER, first.number)
        assert (again.since, [copy.id for copy in again.copies]) == (0, [stage.good.id])

    async def test_what_a_load_taught_is_told_once(self, stage: Stage) -> None:
        await stage.start_with(stage.good)
        await stage.cluster.ensure_loaded(WORKER, stage.good.id, WAIT_S)
        (learned,) = (await stage.cluster.report(WORKER, 0)).measured
        assert learned.id == stage.good.id
        assert learned.measured.digest.startswith("sha256:")
        assert (await stage.cluster.report(WORKER, 0)).measured == ()

    async def test_a_model_that_can_t_be_loaded_says_why(self, stage: Stage) -> None:
        await stage.start_with(stage.broken)
        with pytest.raises(errors.LoadFailed) as caught:
            await stage.cluster.ensure_loaded(WORKER, stage.broken.id, WAIT_S)
        (copy,) = await stage.cluster.copies(WORKER, (stage.broken.id,))
        assert (copy.state, copy.reason) == ("failed", caught.value.message)

    async def test_a_model_that_is_not_registered_is_not_found(self, stage: Stage) -> None:
        await stage.start_with()
        with pytest.raises(errors.ModelNotFound):
            await stage.cluster.ensure_loaded(WORKER, stage.good.id, WAIT_S)

    async def test_a_pin_is_reported_with_the_copy(self, stage: Stage) -> None:
        await stage.start_with(stage.good)
        await stage.cluster.pin(WORKER, stage.good.id, is_pinned=True)
        await stage.cluster.ensure_loaded(WORKER, stage.good.id, WAIT_S)
        assert (await stage.cluster.copies(WORKER, (stage.good.id,)))[0].pinned
        await stage.cluster.pin(WORKER, stage.good.id, is_pinned=False)
        assert not (await stage.cluster.copies(WORKER, (stage.good.id,)))[0].pinned

    async def test_a_model_that_is_withdrawn_leaves_no_copy(self, stage: Stage) -> None:
        await stage.start_with(stage.good)
        await stage.cluster.ensure_loaded(WORKER, stage.good.id, WAIT_S)
        await stage.cluster.send_changes(
            WORKER, catalog_sync.SyncStep(2, (catalog.ModelWithdrawn(stage.good.id),))
        )
        await stage.wait_for_state(stage.good.id, "absent")

    async def test_numbers_of_a_model_that_answered_nothing_are_not_there(
        self, stage: Stage
    ) -> None:
        await stage.start_with(stage.good)
        assert await stage.cluster.stats(WORKER) == {}

    async def test_a_stopped_worker_is_gone_and_stopping_it_again_is_no_error(
        self, stage: Stage
    ) -> None:
        await stage.start()
        lost = tasks.spawn(
            stage.cluster.wait_until_lost(WORKER), "wait until lost", is_awaited=True
        )
        await asyncio.sleep(0.05)
        assert not lost.done()
        await stage.cluster.stop_worker(WORKER)
        async with asyncio.timeout(WAIT_S):
            assert await lost
        assert await stage.cluster.living_workers() == ()
        await stage.cluster.stop_worker(WORKER)

    async def test_a_worker_that_is_started_again_is_another_process(self, stage: Stage) -> None:
        first = await stage.start_with(stage.good)
        second = await stage.start()
        assert second.pid != first.pid
        assert (await stage.cluster.report(WORKER, 0)).revision == 0

    async def test_a_worker_that_is_not_there_is_unavailable(self, stage: Stage) -> None:
        with pytest.raises(errors.Unavailable):
            await stage.cluster.report(WORKER, 0)
        with pytest.raises(errors.Unavailable):
            await stage.cluster.send_changes(WORKER, catalog_sync.SyncStep(1, ()))
        assert await stage.cluster.wait_until_lost(WORKER)

    async def test_a_gateway_serves_follows_and_ends(self, stage: Stage) -> None:
        ((node, *_), *_) = await stage.cluster.nodes()
        snap = snapshots.GatewaySnapshot(stage.listen, node, {"default": ()})
        started = await stage.cluster.start_gateway(node, snap)
        assert (started.node, started.state, started.listen) == (node, "ready", stage.listen)
        again = await stage.cluster.start_gateway(node, snap)
        assert (again.pid, again.envoy_pid) == (started.pid, started.envoy_pid)
        await stage.cluster.configure_gateway(node, snap)
        assert (await stage.cluster.gateway_report(node)).state == "ready"
        lost = tasks.spawn(
            stage.cluster.wait_until_gateway_lost(node), "wait until lost", is_awaited=True
        )
        await asyncio.sleep(0.05)
        assert not lost.done()
        await stage.cluster.stop_gateway(node)
        async with asyncio.timeout(WAIT_S):
            assert await lost
            assert await stage.cluster.wait_until_gateway_lost(node)
        with pytest.raises(errors.Unavailable):
            await stage.cluster.gateway_report(node)
        await stage.cluster.stop_gateway(node)

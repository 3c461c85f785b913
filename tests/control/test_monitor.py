from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve.control import monitor
from meshserve.core.values import (
    desired,
    events,
    gateway_events,
    llm_events,
    llm_spec,
    model,
    reports,
    snapshots,
)
from meshserve.testing import fake_cluster, manual_clock

W = "default-0"


class Host:
    def __init__(self) -> None:
        self.events: list[Any] = []  # tests know which events come

    def post(self, event: events.Event) -> None:
        self.events.append(event)

    def progress(self, worker_id: str) -> monitor.WorkerProgress:
        numbers = [
            event.report.number
            for event in self.events
            if isinstance(event, events.WorkerReported) and event.report.worker_id == worker_id
        ]
        return monitor.WorkerProgress({W: 7}[worker_id], numbers[-1] if numbers else 0)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class Stage:
    def __init__(self) -> None:
        self.cluster, self.clock, self.host = (
            fake_cluster.FakeCluster(),
            manual_clock.ManualClock(),
            Host(),
        )
        self.monitor = monitor.Monitor(self.cluster, self.clock, self.host.post, self.host.progress)

    async def start(self) -> events.WorkerStarted:
        started = await self.cluster.start_worker(W, desired.WorkerSettings())
        self.monitor.watch("worker", W, started.pid)
        return started


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    new_stage = Stage()
    yield new_stage
    new_stage.monitor.close()


async def test_a_worker_reports_each_second(stage: Stage) -> None:
    await stage.start()
    await stage.clock.advance(3.5)
    assert stage.host.kinds() == ["WorkerReported"] * 4
    assert stage.host.events[0].revision == 7


async def test_a_report_of_several_pages_is_fetched_soon(stage: Stage) -> None:
    await stage.start()
    stage.cluster.workers[W].page_copies = 2
    stage.cluster.workers[W].copies = {
        id_: reports.CopyReport(id_, "ready") for id_ in map(model.ModelId, "abcde")
    }
    await stage.clock.advance(0.9)
    said = [event.report for event in stage.host.events]
    assert [(item.since, len(item.copies), item.has_more) for item in said] == [
        (0, 2, True),
        (1, 2, True),
        (2, 1, False),
    ]


async def test_a_process_that_ends_is_noticed_at_once(stage: Stage) -> None:
    started = await stage.start()
    await stage.clock.advance(0.1)
    stage.cluster.kill(W, "signal 9")
    await stage.clock.advance(0.1)
    assert stage.host.events[-1] == events.WorkerLost(W, "signal 9", started.pid)


async def test_a_worker_that_falls_silent_is_lost(stage: Stage) -> None:
    started = await stage.start()
    await stage.clock.advance(0.1)
    del stage.cluster.workers[W]
    await stage.clock.advance(5.0)
    assert stage.host.events[-1] == events.WorkerLost(W, "it does not report any more", started.pid)


async def test_an_unwatched_worker_is_not_polled(stage: Stage) -> None:
    await stage.start()
    stage.monitor.unwatch("worker", W)
    await stage.clock.advance(5.0)
    assert stage.host.events == []


async def test_a_gateway_that_ends_is_noticed_at_once(stage: Stage) -> None:
    await stage.cluster.start_gateway("n1", snapshots.GatewaySnapshot("", "n1", {}))
    stage.monitor.watch("gateway", "n1", 0)
    await stage.clock.advance(0.1)
    stage.cluster.kill_gateway("n1", "signal 9")
    await stage.clock.advance(0.1)
    assert stage.host.events[-1] == gateway_events.GatewayLost("n1", "signal 9")


async def test_a_gateway_is_polled_and_its_loss_noticed(stage: Stage) -> None:
    await stage.cluster.start_gateway("n1", snapshots.GatewaySnapshot("", "n1", {}))
    stage.monitor.watch("gateway", "n1", 0)
    stage.monitor.watch("gateway", "n1", 0)
    await stage.clock.advance(2.5)
    assert stage.host.kinds() == ["GatewayReported"] * 2
    stage.cluster.gateways.clear()
    await stage.clock.advance(5.0)
    assert stage.host.events[-1] == gateway_events.GatewayLost("n1", "it does not report any more")


async def test_an_unwatched_gateway_is_not_polled(stage: Stage) -> None:
    stage.monitor.watch("gateway", "n1", 0)
    stage.monitor.unwatch("gateway", "n1")
    await stage.clock.advance(9.0)
    assert stage.host.events == []


async def watched_replica(stage: Stage) -> llm_events.ReplicaReady:
    ready = await stage.cluster.start_replica(
        "l/0", llm_spec.LlmSpec("l", "/l"), llm_spec.ReplicaPlan()
    )
    stage.monitor.watch("replica", "l/0", ready.pid)
    return ready


async def test_a_replica_reports_each_second(stage: Stage) -> None:
    await watched_replica(stage)
    stage.cluster.replicas["l/0"].last_report = said = llm_spec.LlmReport("l/0", running=3)
    await stage.clock.advance(2.5)
    assert stage.host.events == [llm_events.ReplicaReported(said)] * 3


async def test_a_replica_that_ends_or_whose_engine_does_is_noticed_at_once(stage: Stage) -> None:
    ready = await watched_replica(stage)
    await stage.clock.advance(0.1)
    stage.cluster.kill_replica("l/0", "its tokens stall")
    await stage.clock.advance(0.1)
    assert stage.host.events[-1] == llm_events.ReplicaLost("l/0", "its tokens stall", ready.pid)


async def test_a_replica_that_falls_silent_is_lost(stage: Stage) -> None:
    ready = await watched_replica(stage)
    await stage.clock.advance(0.1)
    del stage.cluster.replicas["l/0"]
    await stage.clock.advance(5.0)
    assert stage.host.events[-1] == llm_events.ReplicaLost(
        "l/0", "it does not report any more", ready.pid
    )


async def test_an_unwatched_replica_is_not_polled(stage: Stage) -> None:
    await watched_replica(stage)
    stage.monitor.unwatch("replica", "l/0")
    await stage.clock.advance(5.0)
    assert stage.host.events == []

"""Nodes are drained and used again in any order, while workers are killed and pools change."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshserve.core.mesh import node_drains
from meshserve.core.values import desired, events
from tests.core import world

NODES = ("n1", "n2", "n3")
MOVE_S = 20.0


class CalmDrains(RuleBasedStateMachine):
    """Nobody kills a worker, and orders are performed: the pool always answers."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world.World(node_names=NODES)
        self.world.apply(pools=(world.pool(workers=2),))
        self.workers = 2
        self.report_all()

    def report_all(self) -> None:
        for worker_id in self.world.processes:
            if self.world.mesh.workers.running(worker_id):
                self.world.hear_report(worker_id)

    @rule(node=st.sampled_from(NODES))
    def drain(self, node: str) -> None:
        is_last = all(seen.id == node for seen in self.world.mesh.catalog.nodes.staying())
        refused = self.world.refused(events.NodeDrainRequested(node, MOVE_S))
        assert refused == ("Conflict" if is_last else "")

    @rule(node=st.sampled_from(NODES))
    def use_again(self, node: str) -> None:
        self.world.feed(events.NodeDrainEndRequested(node))

    @rule(seconds=st.sampled_from([0.5, node_drains.NOTICE_S, 2 * MOVE_S]))
    def wait(self, seconds: float) -> None:
        self.perform_all()
        self.world.tick(seconds)

    @precondition(lambda self: any(self.world.lanes.values()))
    @rule(data=st.data())
    def perform(self, data: st.DataObject) -> None:
        lanes = sorted(name for name, lane in self.world.lanes.items() if lane)
        self.world.step(data.draw(st.sampled_from(lanes)))

    @rule()
    def perform_all(self) -> None:
        self.world.perform_all()
        self.report_all()

    @invariant()
    def holds(self) -> None:
        self.world.check()

    @invariant()
    def answers(self) -> None:
        assert self.world.mesh.workers.ready("default")

    def teardown(self) -> None:
        """All come to rest: every worker is on a node that stays, and nothing on a drained one."""
        for _ in range(6):
            self.world.settle()
            self.report_all()
        staying = {node.id for node in self.world.mesh.catalog.nodes.staying()}
        ids = {f"default-{number}" for number in range(self.workers)}
        assert set(self.world.processes) == ids
        assert {process.node for process in self.world.processes.values()} <= staying
        assert self.world.gateways == staying
        phases = {drain.phase for drain in self.world.mesh.drains.drains.values()}
        assert phases <= {node_drains.DrainPhase.DRAINED}


class WildDrains(CalmDrains):
    """Workers are killed, pools change, and orders take longer than a drain waits for them."""

    @rule(workers=st.integers(1, 3))
    def scale(self, workers: int) -> None:
        self.workers = workers
        wanted = desired.Desired(pools=(world.pool(workers=workers),))
        self.world.feed(events.ConfigApplied(wanted))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.world.kill(data.draw(st.sampled_from(sorted(self.world.processes))))

    @rule(seconds=st.sampled_from([0.5, node_drains.NOTICE_S, 2 * MOVE_S]))
    def wait(self, seconds: float) -> None:
        self.world.tick(seconds)

    def answers(self) -> None:
        """Promise nothing."""


TestCalmDrains = CalmDrains.TestCase
TestCalmDrains.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestWildDrains = WildDrains.TestCase
TestWildDrains.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

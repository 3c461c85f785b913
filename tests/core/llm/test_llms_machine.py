"""LLMs under events in any order.

Every request is answered once, no replica starts in vain or stops too early, and no GPU is taken
twice.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshserve.core.values import events, gateway_events, llm_events, llm_spec, nodes
from tests.core import llm_world

NAMES = ["a", "b", "c"]
CALLED = st.sampled_from([*NAMES, "b-too", "unknown"])
LIMITS = llm_spec.HoldLimits(requests_max=3, bytes_max=100, wait_s_max=200.0)


def spec_of(
    name: str, uri: str, size: int, bounds: tuple[int, int], share: str, adapters: str
) -> llm_spec.LlmSpec:
    return llm_spec.LlmSpec(
        name,
        f"/models/{uri}",
        aliases=(f"{name}-too",),
        adapters=tuple(llm_spec.Adapter(f"{name}-{letter}", letter) for letter in adapters),
        tensor_parallel_size=max(size, 1),
        device="cuda" if size or share else "cpu",
        replicas_min=bounds[0],
        replicas_max=1 if share else bounds[1],
        idle_timeout_s=20.0,
        share=share,
        held=LIMITS,
    )


SPECS = st.builds(
    spec_of,
    st.sampled_from(NAMES),
    st.sampled_from(["x", "y"]),
    st.integers(0, 2),
    st.sampled_from([(0, 1), (1, 1), (0, 2), (1, 2)]),
    st.sampled_from(["", "g"]),
    st.sampled_from(["", "s", "t", "st"]),
)
CONFIGS = st.lists(SPECS, max_size=3, unique_by=lambda spec: spec.name)


class LlmsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = llm_world.LlmWorld(n1=2, n2=1)

    @rule(specs=CONFIGS)
    def apply(self, specs: list[llm_spec.LlmSpec]) -> None:
        self.world.apply_llms(*specs)

    @rule(name=CALLED, size=st.sampled_from([1, 40, 90]))
    def ask(self, name: str, size: int) -> None:
        self.world.ask(name, size)

    @precondition(lambda self: self.world.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from(sorted(self.world.waiting))))

    @rule()
    def leave_twice(self) -> None:
        self.world.feed(llm_events.HeldRequestLeft("unknown"))

    @precondition(lambda self: any(self.world.lanes.values()))
    @rule(data=st.data(), is_lost=st.booleans())
    def perform(self, data: st.DataObject, is_lost: bool) -> None:
        lane = data.draw(
            st.sampled_from(sorted(name for name, lane in self.world.lanes.items() if lane))
        )
        self.world.step(lane, is_lost=is_lost)

    @rule()
    def perform_all(self) -> None:
        self.world.perform_all()

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.world.kill_engine(data.draw(st.sampled_from(sorted(self.world.engines))))

    @rule(names=st.sets(st.sampled_from(NAMES)))
    def break_starts(self, names: set[str]) -> None:
        self.world.failing_starts = names

    @precondition(lambda self: self.world.engines)
    @rule(data=st.data(), running=st.integers(0, 2), waiting=st.integers(0, 1))
    def load(self, data: st.DataObject, running: int, waiting: int) -> None:
        engine = self.world.engines[data.draw(st.sampled_from(sorted(self.world.engines)))]
        engine.running, engine.waiting = (running, waiting) if engine.is_awake else (0, 0)

    @rule(stalled_s=st.sampled_from([0.0, 0.0, 61.0]))
    def report(self, stalled_s: float) -> None:
        self.world.report(stalled_s=stalled_s)

    @rule(has_replicas=st.booleans())
    def see_capacity(self, has_replicas: bool) -> None:
        self.world.see_capacity(has_replicas=has_replicas)

    @rule(seconds=st.sampled_from([0.5, 11.0, 31.0, 130.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(names=st.sampled_from([("n1",), ("n1", "n2")]))
    def see_nodes(self, names: tuple[str, ...]) -> None:
        self.world.feed(gateway_events.NodesSeen(tuple(map(nodes.ClusterNode, names))))

    @precondition(lambda self: self.world.gateways)
    @rule(data=st.data())
    def lose_gateway(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.world.gateways)))
        self.world.gateways.discard(node)
        self.world.feed(gateway_events.GatewayLost(node, "gone"))

    @rule()
    def settle(self) -> None:
        self.world.settle()
        self.world.check_engines_settled()

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.settle()
        self.world.feed(events.DrainRequested())
        self.world.perform_all()
        assert self.world.mesh.is_drained
        assert (self.world.engines, self.world.waiting, self.world.taken) == ({}, {}, {})


LlmsMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLlms = LlmsMachine.TestCase

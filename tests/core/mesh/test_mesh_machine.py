"""In any order of events: nothing saved is lost, and in the end every worker has its catalog."""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshserve import errors
from meshserve.core.values import containment, desired, events, model, reports
from tests.core import world

NAMES = st.sampled_from(["a", "b", "c", "d"])
KEYS = st.sampled_from(["sha256:a/1", "sha256:b/1"])
POOLS = st.sampled_from(["default", "gpu"])
REPOSITORY = desired.RepositorySettings("/repo")
SPECS = st.builds(
    lambda name, version, pool, uri, pinned: world.spec(
        name, version, pool=pool, uri=uri, pinned=pinned
    ),
    NAMES,
    st.sampled_from(["1", "2"]),
    POOLS,
    st.sampled_from(["/x", "/y"]),
    st.booleans(),
)


def from_origin(
    specs: list[model.ModelSpec] | tuple[model.ModelSpec, ...], origin: model.Origin
) -> tuple[model.ModelSpec, ...]:
    return tuple({item.id: dataclasses.replace(item, origin=origin) for item in specs}.values())


CONFIGS = st.builds(
    lambda workers, gpu, specs, alias, is_watching, memory: desired.Desired(
        pools=(world.pool(workers=workers, memory=model.Footprint(memory)), world.pool("gpu", gpu)),
        models=from_origin(specs, model.FROM_CONFIG),
        aliases=(desired.DesiredAlias("alias", alias, origin=model.FROM_CONFIG),) if alias else (),
        repositories=(REPOSITORY,) if is_watching else (),
    ),
    st.integers(1, 3),
    st.integers(0, 2),
    st.lists(SPECS, max_size=3),
    st.none() | NAMES,
    st.booleans(),
    st.sampled_from([100, 200]),
)


class MeshMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = world.World(is_saving_slowly=True)

    def request(self, request: events.AdminRequest) -> None:
        try:
            self.world.feed(request)
        except errors.MeshError:
            self.world.check()

    @rule(config=CONFIGS)
    def apply(self, config: desired.Desired) -> None:
        self.request(events.ConfigApplied(config))

    @rule(
        specs=st.lists(SPECS, min_size=1, max_size=3),
        is_replacing=st.booleans(),
    )
    def register(self, specs: list[model.ModelSpec], is_replacing: bool) -> None:
        self.request(events.ModelsRegistered(from_origin(specs, model.FROM_API), is_replacing))

    @rule(name=NAMES)
    def load(self, name: str) -> None:
        if self.world.mesh.catalog.models.versions(name):
            self.world.load(name)

    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        if self.world.mesh.catalog.models.versions(name):
            self.world.unload(name)

    @rule(name=NAMES, version=st.sampled_from(["", "1", "2"]))
    def remove(self, name: str, version: str) -> None:
        self.request(events.ModelRemoved(name, version))

    @rule(specs=st.lists(SPECS, max_size=3))
    def scan(self, specs: list[model.ModelSpec]) -> None:
        one_pool = tuple(dataclasses.replace(item, pool="default") for item in specs)
        self.request(
            events.RepositoryScanned(REPOSITORY.origin, from_origin(one_pool, REPOSITORY.origin))
        )

    @rule(
        alias=st.sampled_from(["alias", "other", "a"]),
        name=NAMES,
        is_gradual=st.booleans(),
        spec=st.none() | SPECS,
    )
    def set_alias(
        self, alias: str, name: str, is_gradual: bool, spec: model.ModelSpec | None
    ) -> None:
        registered = (
            dataclasses.replace(spec, id=model.ModelId(name), origin=model.FROM_ALIAS)
            if spec
            else None
        )
        self.request(
            events.AliasRequested(
                desired.DesiredAlias(alias, name), is_gradual=is_gradual, spec=registered
            )
        )

    @rule(alias=st.sampled_from(["alias", "other", "a"]))
    def clear_alias(self, alias: str) -> None:
        self.request(events.AliasRemovalRequested(alias))

    @rule(name=NAMES, is_pinned=st.booleans())
    def pin(self, name: str, is_pinned: bool) -> None:
        self.request(events.PinRequested(model.ModelId(name), is_pinned))

    @rule(names=st.sets(NAMES))
    def break_loads(self, names: set[str]) -> None:
        self.world.failing_loads = names

    @precondition(lambda self: any(self.world.lanes.values()))
    @rule(data=st.data(), is_lost=st.booleans())
    def perform(self, data: st.DataObject, is_lost: bool) -> None:
        lane = data.draw(
            st.sampled_from(sorted(name for name, lane in self.world.lanes.items() if lane))
        )
        self.world.step(lane, is_lost=is_lost)

    @rule()
    def stall(self) -> None:
        self.world.feed(events.SaveStalled("it hangs"))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.world.kill(data.draw(st.sampled_from(sorted(self.world.processes))))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data())
    def hear_of_an_earlier_process(self, data: st.DataObject) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.world.processes)))
        self.world.feed(events.WorkerLost(worker_id, "an earlier process has ended", pid=10_000))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), name=NAMES, size=st.sampled_from([10, 100]))
    def learn(self, data: st.DataObject, name: str, size: int) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.world.processes)))
        process = self.world.processes[worker_id]
        report = reports.WorkerReport(
            worker_id,
            process.pid,
            "n1",
            "ready",
            process.follower.revision,
            measured=(world.measured(name, size),),
        )
        self.world.feed(
            events.WorkerReported(report, self.world.mesh.workers.records[worker_id].synced)
        )

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), name=NAMES, share=st.sampled_from([0.0, 0.5, 1.0]))
    def be_busy(self, data: st.DataObject, name: str, share: float) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.world.processes)))
        process = self.world.processes[worker_id]
        demands = (reports.ModelDemand(model.ModelId(name), share),)
        report = reports.WorkerReport(
            worker_id, process.pid, "n1", "ready", process.follower.revision, demands=demands
        )
        self.world.feed(
            events.WorkerReported(report, self.world.mesh.workers.records[worker_id].synced)
        )

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), keys=st.sets(KEYS), is_told_first=st.booleans())
    def die_and_be_told_of(self, data: st.DataObject, keys: set[str], is_told_first: bool) -> None:
        dying = data.draw(st.sampled_from(sorted(self.world.processes)))
        death = containment.WorkerDeath(dying, self.world.processes[dying].pid, tuple(keys))
        if not is_told_first:
            self.world.kill(dying)
        for worker_id in sorted(self.world.processes):
            self.world.hear_report(worker_id, deaths=(death,))
        if is_told_first:
            self.world.kill(dying)

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), key=KEYS, name=NAMES, reason=st.sampled_from(["", "SIGSEGV"]))
    def end_trial(self, data: st.DataObject, key: str, name: str, reason: str) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.world.processes)))
        ended = containment.TrialEnded(key, model.ModelId(name), reason)
        self.world.hear_report(worker_id, trials=(ended,))

    @rule(name=NAMES)
    def release(self, name: str) -> None:
        self.request(events.ReleaseRequested(name))

    @rule(seconds=st.sampled_from([0.1, 5.0, 31.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule()
    def settle(self) -> None:
        self.world.settle()
        self.world.check_settled()

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.settle()
        self.world.check_settled()


MeshMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestMesh = MeshMachine.TestCase

from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.llm import llm_fleet, llm_state, replica_state, rolling_update
from meshserve.core.llm.replica_state import ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import llm_spec, model
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)
GIB = 1 << 30
NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def fleet() -> llm_fleet.Fleet:
    return llm_fleet.Fleet(gateways.Gateways([]), [])


def serve(fleet: llm_fleet.Fleet, count: int = 1, **fields: Any) -> llm_state.LlmRecord:
    """Return an LLM whose ready replicas have an outdated engine."""
    fleet.set_wanted([llm_world.spec("a", replicas_min=count, replicas_max=count, **fields)])
    llm = fleet.llms["a"]
    llm.desired_replicas = count
    for _ in range(count):
        add(fleet, llm, ReplicaPhase.READY)
    bounds = {"replicas_min": count, "replicas_max": count}
    fleet.set_wanted([llm_world.spec("a", engine={"seed": 1}, **bounds, **fields)])
    return llm


def add(
    fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, phase: ReplicaPhase
) -> replica_state.ReplicaRecord:
    replica = fleet.add_replica(llm, llm.next_id(), llm.spec)
    replica.phase, replica.endpoint = phase, ENDPOINT
    return replica


def test_nothing_goes_without_a_change(fleet: llm_fleet.Fleet) -> None:
    fleet.set_wanted([llm_world.spec("a")])
    llm = fleet.llms["a"]
    add(fleet, llm, ReplicaPhase.READY)
    assert rolling_update.next_step(fleet, llm) == (NOTHING, 0, "")


@pytest.mark.parametrize("phase", [*sorted(replica_state.COMING_UP, key=str), ReplicaPhase.FAILED])
def test_an_outdated_replica_that_does_not_serve_goes_at_once(
    fleet: llm_fleet.Fleet, phase: ReplicaPhase
) -> None:
    llm = serve(fleet)
    llm.replicas["a/0"].phase = phase
    assert rolling_update.next_step(fleet, llm).going == {"a/0"}


def test_with_a_free_gpu_the_replacement_comes_first(fleet: llm_fleet.Fleet) -> None:
    fleet.bookings.observe((llm_spec.NodeCapacity("n1", 2, 1),))
    llm = serve(fleet)
    assert rolling_update.next_step(fleet, llm) == (NOTHING, 1, "")
    replacement = add(fleet, llm, ReplicaPhase.STARTING)
    assert rolling_update.next_step(fleet, llm).going == NOTHING
    # An engine that does not start leaves the old one as it is.
    replacement.phase = ReplicaPhase.FAILED
    assert rolling_update.next_step(fleet, llm).going == NOTHING
    replacement.phase = ReplicaPhase.READY
    assert rolling_update.next_step(fleet, llm).going == {"a/0"}


def test_without_a_free_gpu_the_old_engine_goes_first(fleet: llm_fleet.Fleet) -> None:
    fleet.bookings.observe((llm_spec.NodeCapacity("n1", 1, 0),))
    llm = serve(fleet)
    shortage = "it needs 1 GPU and 0 are free on n1; others hold 1"
    assert rolling_update.next_step(fleet, llm) == (frozenset({"a/0"}), 0, shortage)


def test_without_room_one_of_several_goes_at_a_time(fleet: llm_fleet.Fleet) -> None:
    fleet.bookings.observe((llm_spec.NodeCapacity("n1", 2, 0),))
    llm = serve(fleet, 2)
    assert len(rolling_update.next_step(fleet, llm).going) == 1
    llm.replicas["a/0"].phase = ReplicaPhase.DRAINING
    assert rolling_update.next_step(fleet, llm).going == {"a/0"}
    llm.replicas["a/0"].phase = ReplicaPhase.STOPPING
    add(fleet, llm, ReplicaPhase.WAITING)
    assert rolling_update.next_step(fleet, llm).going == NOTHING


@pytest.mark.parametrize(
    ("used", "free", "shortage"),
    [
        (2 * GIB, 3 * GIB, ""),
        (2 * GIB, 2 * GIB, "it takes 2.4 GiB and 2.0 GiB are free on its machine"),
        (0, 9 * GIB, "the memory that it takes is not known yet"),
    ],
)
def test_on_a_cpu_memory_is_the_room(
    fleet: llm_fleet.Fleet, used: int, free: int, shortage: str
) -> None:
    llm = serve(fleet, device="cpu")
    report = llm_spec.LlmReport("a/0", memory_bytes=used, memory_free_bytes=free)
    llm.replicas["a/0"].report = report
    step = rolling_update.next_step(fleet, llm)
    assert step == (frozenset({"a/0"} if shortage else ()), int(not shortage), shortage)


def test_engines_that_share_gpus_have_no_room_beside_them(fleet: llm_fleet.Fleet) -> None:
    fleet.bookings.observe((llm_spec.NodeCapacity("n1", 2, 2),))
    llm = serve(fleet, share="g")
    assert rolling_update.next_step(fleet, llm).shortage == "its GPUs hold one engine at a time"


def test_the_old_engine_answers_while_a_new_one_does_not_start() -> None:
    world = llm_world.LlmWorld()
    world.apply_llms(llm_world.spec("a"))
    world.perform_all()
    world.apply_llms(llm_world.spec("a", engine={"seed": 1}))
    world.failing_starts = {"a"}
    world.pass_time(5.0)
    route = world.mesh.llms.llms["a"].route
    assert route is not None
    assert [member.worker_id for member in route.members] == ["a/0"]
    assert not route.is_held
    world.failing_starts = set()
    world.pass_time(200.0)
    assert {id_: engine.spec.engine for id_, engine in world.engines.items()} == {
        "a/1": {"seed": 1}
    }

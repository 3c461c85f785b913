from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshserve.core.memory import eviction
from meshserve.core.memory.eviction import Candidate, HostBuffer
from meshserve.core.values.model import Footprint

sizes = st.integers(0, 40)
footprints = st.builds(Footprint, sizes, sizes)
rooms = st.builds(Footprint, st.integers(-60, 60), st.integers(-60, 60))


BIG = Footprint(100, 0)


@dataclass(frozen=True)
class Used:
    """A copy as a policy sees it."""

    need: Footprint = BIG
    uses: float = 1.0
    load_s: float = 1.0


def lined_up(offered, prefix="c"):
    """Candidates in the order in which they would leave, each a footprint and whether it can be parked."""
    return [
        Candidate(f"{prefix}{i}", footprint, can_offload, i)
        for i, (footprint, can_offload) in enumerate(offered)
    ]


queues = st.lists(st.tuples(footprints, st.booleans()), max_size=8).map(lined_up)
shelves = st.lists(sizes, max_size=5).map(
    lambda offered: lined_up([(Footprint(each), False) for each in offered], "old")
)


def together(footprints_):
    """Their sum."""
    total = Footprint()
    for footprint in footprints_:
        total = total.plus(footprint)
    return total


# Who leaves


@settings(deadline=None)
@given(queues, rooms, footprints)
def test_there_is_a_plan_if_and_only_if_all_together_would_do(candidates, room, need):
    would_do = need.fits_in(room.plus(together(each.footprint for each in candidates)))
    assert (eviction.plan(candidates, room, need) is not None) == would_do


@settings(deadline=None)
@given(queues, rooms, footprints)
def test_a_plan_makes_the_room_and_nobody_leaves_in_vain(candidates, room, need):
    planned = eviction.plan(candidates, room, need)
    if planned is None:
        return
    leaving = [each.footprint for each in candidates if each.key in planned.free]
    assert len(leaving) == len(planned.free)
    assert need.fits_in(room.plus(together(leaving)))
    for evictable in leaving:
        assert not need.fits_in(room.plus(together(leaving)).minus(evictable))


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 100))
def test_among_equals_the_cheapest_leave(many, need_bytes):
    candidates = lined_up([(Footprint(10), False)] * many)
    planned = eviction.plan(candidates, Footprint(), Footprint(need_bytes))
    leaving = -(-need_bytes // 10)
    expected = None if leaving > many else tuple(each.key for each in candidates[:leaving])
    assert (planned and planned.free) == expected


def test_candidates_are_read_no_further_than_needed():
    candidates = iter(lined_up([(Footprint(10), False)] * 5))
    assert eviction.plan(candidates, Footprint(5), Footprint(20)) == eviction.EvictionPlan(
        free=("c0", "c1")
    )
    assert [each.key for each in candidates] == ["c2", "c3", "c4"]


def test_a_bigger_one_spares_the_cheaper_ones_before_it():
    candidates = lined_up([(Footprint(5), False), (Footprint(5), False), (Footprint(50), False)])
    assert eviction.plan(candidates, Footprint(), Footprint(45)) == eviction.EvictionPlan(
        free=("c2",)
    )


def test_whoever_has_nothing_of_what_is_lacking_stays():
    candidates = lined_up([(Footprint(50, 0), False), (Footprint(0, 50), False)])
    assert eviction.plan(candidates, Footprint(0, 0), Footprint(0, 20)) == eviction.EvictionPlan(
        free=("c1",)
    )


def test_nobody_leaves_where_there_is_room():
    assert (
        eviction.plan(lined_up([(Footprint(5), False)]), Footprint(10), Footprint(10))
        == eviction.EvictionPlan()
    )


# Who only leaves the GPU


def on_gpu(*gpu_bytes):
    return lined_up([(Footprint(1, each), True) for each in gpu_bytes])


@settings(deadline=None)
@given(queues, rooms, footprints, sizes, sizes, shelves)
def test_host_memory_is_never_promised_twice(candidates, room, need, now_bytes, more_bytes, older):
    shelf = HostBuffer(now_bytes, now_bytes + more_bytes, older)
    planned = eviction.plan(candidates, room, need, shelf)
    plain = eviction.plan(candidates, room, need)
    assert (planned is None) == (plain is None)
    if planned is None:
        return
    moved = {
        each.key: each.footprint.gpu_bytes
        for each in candidates
        if each.can_offload and each.footprint.gpu_bytes
    }
    gone = {each.key: each for each in older if each.key in planned.free}
    postponed = set(plain.free) - set(planned.free) - set(planned.park)
    assert set(planned.free) | set(planned.park) | postponed == set(plain.free) | set(gone)
    assert sum(moved[key] for key in planned.park) <= now_bytes
    kept_bytes = sum(moved[key] for key in {*planned.park, *postponed})
    assert kept_bytes <= shelf.soon_bytes + sum(each.footprint.host_bytes for each in gone.values())
    assert planned.is_postponed == bool(postponed)
    assert not gone or postponed


def test_it_is_parked_if_host_memory_has_room():
    planned = eviction.plan(on_gpu(30), Footprint(50, 0), Footprint(0, 30), HostBuffer(50, 50))
    assert planned == eviction.EvictionPlan(park=("c0",))


def test_the_dearest_are_parked_first():
    planned = eviction.plan(on_gpu(30, 30), Footprint(40, 0), Footprint(0, 60), HostBuffer(40, 40))
    assert planned == eviction.EvictionPlan(free=("c0",), park=("c1",))


def test_it_is_freed_if_host_memory_has_no_room():
    assert eviction.plan(
        on_gpu(30), Footprint(20, 0), Footprint(0, 30), HostBuffer(20, 20)
    ) == eviction.EvictionPlan(free=("c0",))


def test_it_waits_for_room_in_host_memory_that_is_coming():
    planned = eviction.plan(on_gpu(30), Footprint(50, 0), Footprint(0, 30), HostBuffer(10, 50))
    assert planned == eviction.EvictionPlan(is_postponed=True)


def test_the_cheapest_parked_ones_make_way_for_it_and_no_more_than_needed():
    older = [Candidate(f"old{i}", Footprint(20), score=i / 10) for i in range(1, 5)]
    candidates = [Candidate("new", Footprint(1, 30), can_offload=True, score=1.0)]
    planned = eviction.plan(candidates, Footprint(), Footprint(0, 30), HostBuffer(0, 0, older))
    assert planned == eviction.EvictionPlan(free=("old1", "old2"), is_postponed=True)


def test_nobody_makes_way_twice():
    older = [Candidate(f"old{i}", Footprint(30)) for i in range(3)]
    candidates = [
        Candidate(f"new{i}", Footprint(1, 30), can_offload=True, score=1.0) for i in range(2)
    ]
    planned = eviction.plan(candidates, Footprint(), Footprint(0, 60), HostBuffer(0, 0, older))
    assert planned == eviction.EvictionPlan(free=("old1", "old0"), is_postponed=True)


def test_dearer_parked_ones_do_not_make_way():
    older = [
        Candidate("cheap", Footprint(20), score=0.1),
        Candidate("dear", Footprint(20), score=2.0),
    ]
    candidates = [Candidate("new", Footprint(1, 30), can_offload=True, score=1.0)]
    assert eviction.plan(
        candidates, Footprint(), Footprint(0, 30), HostBuffer(0, 0, older)
    ) == eviction.EvictionPlan(free=("new",))


def test_not_everybody_makes_way_for_one():
    older = [Candidate(f"old{i}", Footprint(1)) for i in range(2 * eviction.MAKE_WAY_MAX)]
    candidates = [
        Candidate("new", Footprint(1, eviction.MAKE_WAY_MAX + 1), can_offload=True, score=1.0)
    ]
    assert eviction.plan(
        candidates, Footprint(), Footprint(0, 1), HostBuffer(0, 0, older)
    ) == eviction.EvictionPlan(free=("new",))


# Scores


def test_lru_scores_by_time_alone():
    assert eviction.lru(Used(uses=9), 5.0, 3.0) == 5.0


@pytest.mark.parametrize(
    "dearer",
    [Used(uses=2.0), Used(load_s=2.0), Used(need=Footprint(50, 0)), Used(need=Footprint(20, 30))],
)
def test_gdsf_keeps_what_is_hot_slow_to_load_or_small(dearer):
    assert eviction.gdsf(dearer, 0.0, 0.0) > eviction.gdsf(Used(), 0.0, 0.0)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_gdsf_never_scores_below_its_age(age, uses):
    assert eviction.gdsf(Used(uses=uses), 0.0, age) >= age


@pytest.mark.parametrize("used", [Used(load_s=0.0), Used(need=Footprint())])
def test_gdsf_takes_copies_that_cost_or_weigh_nothing(used):
    assert 0 < eviction.gdsf(used, 0.0, 0.0) < float("inf")


def test_uses_halve_in_their_half_life():
    assert eviction.decayed(8.0, eviction.HALF_LIFE_S) == 4.0
    assert eviction.decayed(8.0, 0.0) == 8.0


def test_the_policies_have_the_names_of_the_configuration():
    assert {"lru": eviction.lru, "gdsf": eviction.gdsf} == eviction.POLICIES

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshserve.core.memory import eviction
from meshserve.core.memory.eviction import Candidate, HostBuffer
from meshserve.core.values.model import Footprint

sizes = st.integers(0, 40)
footprints = st.builds(Footprint, sizes, sizes)
frees = st.builds(Footprint, st.integers(-60, 60), st.integers(-60, 60))


BIG = Footprint(100, 0)


@dataclass(frozen=True)
class Used:
    """A copy as a policy sees it."""

    need: Footprint = BIG
    uses: float = 1.0
    load_s: float = 1.0


def queue_of(offered: Sequence[tuple[Footprint, bool]], prefix: str = "c") -> list[Candidate]:
    """Return candidates of these footprints, lowest score first; the flag is `can_offload`."""
    return [
        Candidate(f"{prefix}{i}", footprint, can_offload, i)
        for i, (footprint, can_offload) in enumerate(offered)
    ]


queues = st.lists(st.tuples(footprints, st.booleans()), max_size=8).map(queue_of)
buffers = st.lists(sizes, max_size=5).map(
    lambda offered: queue_of([(Footprint(size), False) for size in offered], "old")
)


def total(footprints_: Iterable[Footprint]) -> Footprint:
    """Return the sum."""
    result = Footprint()
    for footprint in footprints_:
        result = result.plus(footprint)
    return result


# Victims


@settings(deadline=None)
@given(queues, frees, footprints)
def test_a_plan_exists_exactly_if_all_candidates_would_do(
    candidates: list[Candidate], free: Footprint, need: Footprint
) -> None:
    would_do = need.fits_in(free.plus(total(candidate.footprint for candidate in candidates)))
    assert (eviction.plan(candidates, free, need) is not None) == would_do


@settings(deadline=None)
@given(queues, frees, footprints)
def test_a_plan_makes_enough_room_and_has_no_needless_victim(
    candidates: list[Candidate], free: Footprint, need: Footprint
) -> None:
    planned = eviction.plan(candidates, free, need)
    if planned is None:
        return
    leaving = [candidate.footprint for candidate in candidates if candidate.key in planned.free]
    assert len(leaving) == len(planned.free)
    assert need.fits_in(free.plus(total(leaving)))
    for victim in leaving:
        assert not need.fits_in(free.plus(total(leaving)).minus(victim))


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 100))
def test_of_equal_sizes_the_lowest_scores_leave(many: int, need_bytes: int) -> None:
    candidates = queue_of([(Footprint(10), False)] * many)
    planned = eviction.plan(candidates, Footprint(), Footprint(need_bytes))
    leaving = -(-need_bytes // 10)
    expected = (
        None if leaving > many else tuple(candidate.key for candidate in candidates[:leaving])
    )
    assert (planned and planned.free) == expected


def test_candidates_are_read_no_further_than_needed() -> None:
    candidates = iter(queue_of([(Footprint(10), False)] * 5))
    assert eviction.plan(candidates, Footprint(5), Footprint(20)) == eviction.EvictionPlan(
        free=("c0", "c1")
    )
    assert [candidate.key for candidate in candidates] == ["c2", "c3", "c4"]


def test_a_bigger_victim_spares_those_of_lower_scores() -> None:
    candidates = queue_of([(Footprint(5), False), (Footprint(5), False), (Footprint(50), False)])
    assert eviction.plan(candidates, Footprint(), Footprint(45)) == eviction.EvictionPlan(
        free=("c2",)
    )


def test_a_copy_that_has_no_bytes_on_the_lacking_device_stays() -> None:
    candidates = queue_of([(Footprint(50, 0), False), (Footprint(0, 50), False)])
    assert eviction.plan(candidates, Footprint(0, 0), Footprint(0, 20)) == eviction.EvictionPlan(
        free=("c1",)
    )


def test_no_copy_leaves_if_enough_is_free() -> None:
    assert (
        eviction.plan(queue_of([(Footprint(5), False)]), Footprint(10), Footprint(10))
        == eviction.EvictionPlan()
    )


# Offloading


def on_gpu(*gpu_bytes: int) -> list[Candidate]:
    return queue_of([(Footprint(1, size), True) for size in gpu_bytes])


@settings(deadline=None)
@given(queues, frees, footprints, sizes, sizes, buffers)
def test_host_memory_is_promised_once(
    candidates: list[Candidate],
    free: Footprint,
    need: Footprint,
    now_bytes: int,
    more_bytes: int,
    offloaded: list[Candidate],
) -> None:
    buffer = HostBuffer(now_bytes, now_bytes + more_bytes, offloaded)
    planned = eviction.plan(candidates, free, need, buffer)
    plain = eviction.plan(candidates, free, need)
    assert (planned is None) == (plain is None)
    if planned is None or plain is None:
        return
    moved = {
        candidate.key: candidate.footprint.gpu_bytes
        for candidate in candidates
        if candidate.can_offload and candidate.footprint.gpu_bytes
    }
    displaced = {
        candidate.key: candidate for candidate in offloaded if candidate.key in planned.free
    }
    postponed = set(plain.free) - set(planned.free) - set(planned.offload)
    assert set(planned.free) | set(planned.offload) | postponed == set(plain.free) | set(displaced)
    assert sum(moved[key] for key in planned.offload) <= now_bytes
    kept_bytes = sum(moved[key] for key in {*planned.offload, *postponed})
    assert kept_bytes <= buffer.free_soon_bytes + sum(
        candidate.footprint.host_bytes for candidate in displaced.values()
    )
    assert planned.is_postponed == bool(postponed)
    assert not displaced or postponed


def test_a_victim_is_offloaded_if_host_memory_is_free() -> None:
    planned = eviction.plan(on_gpu(30), Footprint(50, 0), Footprint(0, 30), HostBuffer(50, 50))
    assert planned == eviction.EvictionPlan(offload=("c0",))


def test_the_highest_scores_are_offloaded_first() -> None:
    planned = eviction.plan(on_gpu(30, 30), Footprint(40, 0), Footprint(0, 60), HostBuffer(40, 40))
    assert planned == eviction.EvictionPlan(free=("c0",), offload=("c1",))


def test_a_victim_is_freed_if_host_memory_is_full() -> None:
    assert eviction.plan(
        on_gpu(30), Footprint(20, 0), Footprint(0, 30), HostBuffer(20, 20)
    ) == eviction.EvictionPlan(free=("c0",))


def test_offloading_is_postponed_while_host_memory_is_being_freed() -> None:
    planned = eviction.plan(on_gpu(30), Footprint(50, 0), Footprint(0, 30), HostBuffer(10, 50))
    assert planned == eviction.EvictionPlan(is_postponed=True)


def test_no_more_offloaded_copies_than_needed_are_displaced() -> None:
    offloaded = [Candidate(f"old{i}", Footprint(20), score=i / 10) for i in range(1, 5)]
    candidates = [Candidate("new", Footprint(1, 30), can_offload=True, score=1.0)]
    planned = eviction.plan(candidates, Footprint(), Footprint(0, 30), HostBuffer(0, 0, offloaded))
    assert planned == eviction.EvictionPlan(free=("old1", "old2"), is_postponed=True)


def test_an_offloaded_copy_is_displaced_once() -> None:
    offloaded = [Candidate(f"old{i}", Footprint(30)) for i in range(3)]
    candidates = [
        Candidate(f"new{i}", Footprint(1, 30), can_offload=True, score=1.0) for i in range(2)
    ]
    planned = eviction.plan(candidates, Footprint(), Footprint(0, 60), HostBuffer(0, 0, offloaded))
    assert planned == eviction.EvictionPlan(free=("old1", "old0"), is_postponed=True)


def test_offloaded_copies_of_higher_scores_are_not_displaced() -> None:
    offloaded = [
        Candidate("cheap", Footprint(20), score=0.1),
        Candidate("dear", Footprint(20), score=2.0),
    ]
    candidates = [Candidate("new", Footprint(1, 30), can_offload=True, score=1.0)]
    assert eviction.plan(
        candidates, Footprint(), Footprint(0, 30), HostBuffer(0, 0, offloaded)
    ) == eviction.EvictionPlan(free=("new",))


def test_a_bounded_number_of_offloaded_copies_is_displaced_for_one() -> None:
    offloaded = [Candidate(f"old{i}", Footprint(1)) for i in range(2 * eviction.DISPLACED_MAX)]
    candidates = [
        Candidate("new", Footprint(1, eviction.DISPLACED_MAX + 1), can_offload=True, score=1.0)
    ]
    assert eviction.plan(
        candidates, Footprint(), Footprint(0, 1), HostBuffer(0, 0, offloaded)
    ) == eviction.EvictionPlan(free=("new",))


# Scores


def test_lru_scores_by_time_alone() -> None:
    assert eviction.lru(Used(uses=9), 5.0, 3.0) == 5.0


@pytest.mark.parametrize(
    "keeper",
    [Used(uses=2.0), Used(load_s=2.0), Used(need=Footprint(50, 0)), Used(need=Footprint(20, 30))],
)
def test_gdsf_keeps_what_is_hot_slow_to_load_or_small(keeper: Used) -> None:
    assert eviction.gdsf(keeper, 0.0, 0.0) > eviction.gdsf(Used(), 0.0, 0.0)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_gdsf_never_scores_below_its_age(age: float, uses: float) -> None:
    assert eviction.gdsf(Used(uses=uses), 0.0, age) >= age


@pytest.mark.parametrize("used", [Used(load_s=0.0), Used(need=Footprint())])
def test_gdsf_scores_copies_without_load_time_or_bytes(used: Used) -> None:
    assert 0 < eviction.gdsf(used, 0.0, 0.0) < float("inf")


def test_uses_halve_in_their_half_life() -> None:
    assert eviction.decayed(8.0, eviction.HALF_LIFE_S) == 4.0
    assert eviction.decayed(8.0, 0.0) == 8.0


def test_the_policies_have_the_names_of_the_configuration() -> None:
    assert {"lru": eviction.lru, "gdsf": eviction.gdsf} == eviction.POLICIES

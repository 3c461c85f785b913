"""Hypothesis looks for an order of events and answers that breaks an invariant of residency."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from meshserve import errors
from meshserve.core.memory import eviction, version_choice
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import model
from tests.core import play

NAMES = "abcdefgh"
names = st.sampled_from(NAMES)
hosts = st.sampled_from([0, 1, 5, 10, 20, 30, 45, 60, 90, 130])
gpus = st.sampled_from([0, 0, 5, 20, 40, 70, 120])
waits = st.sampled_from([0.0, 0.1, 0.7, 3.0, 12.0, 100.0])
ROUNDS_MAX = 400
KeyT = TypeVar("KeyT", int, str)


class World(RuleBasedStateMachine):
    """Eight models, 100 bytes of host memory, and in half of the runs 100 bytes of GPU memory."""

    @initialize(
        gpu=st.sampled_from([0, 100]),
        policy=st.sampled_from([eviction.lru, eviction.gdsf]),
        parallel=st.integers(1, 3),
        idle_s=st.sampled_from([None, 20.0]),
        waiters_max=st.sampled_from([3, 50]),
    )
    def begin(
        self,
        gpu: int,
        policy: eviction.Policy,
        parallel: int,
        idle_s: float | None,
        waiters_max: int,
    ) -> None:
        self.gpu = gpu
        self.play = play.Play(
            100, gpu, policy, loads_parallel=parallel, idle_unload_s=idle_s, waiters_max=waiters_max
        )
        for number, name in enumerate(NAMES):
            size = (5, 15 + 10 * (number % 4)) if gpu else (10 + 10 * number, 0)
            self.play.declare(name, *size, key=f"k{number}", can_offload=bool(gpu))

    def _one_of(self, data: st.DataObject, pending: Iterable[KeyT]) -> KeyT:
        return data.draw(st.sampled_from(list(pending)))

    # Requests

    @rule(name=names)
    def request(self, name: str) -> None:
        self.play.request(name)

    @rule(name=names)
    def lease(self, name: str) -> None:
        id_ = play.id_of(name)
        key = self.play.residency.lease(id_, self.play.now_s)
        if key is not None:
            self.play.leases[key] += 1
        self.play.residency.check()

    @rule(name=names)
    def use(self, name: str) -> None:
        key = self.play.residency.find_ready(play.id_of(name))
        if key is not None:
            self.play.residency.record_use(key, self.play.now_s)
        self.play.residency.check()

    @precondition(lambda self: +self.play.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.play.end_lease(self._one_of(data, sorted(+self.play.leases)))

    @precondition(lambda self: self.play.requests)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.play.leave(self.play.requests[self._one_of(data, self.play.requests)])

    @rule(requested=st.lists(names, min_size=1, max_size=4))
    def request_and_load(self, requested: list[str]) -> None:
        """Load models without failures, and keep them in use."""
        for name in requested:
            self.play.request(name)
        for attempt in list(self.play.orders.fetching):
            self.play.finish_attempt(attempt)
        for key in list(self.play.orders.freeing):
            self.play.finish_free_of(key)
        for key in list(self.play.orders.loading):
            self.play.finish_load_of(key)

    # Answers

    @precondition(lambda self: self.play.orders.fetching)
    @rule(
        data=st.data(),
        is_good=st.sampled_from([True, True, True, False]),
        load_extra_bytes=st.sampled_from([0, 0, 10, 60]),
    )
    def finish_attempt(self, data: st.DataObject, is_good: bool, load_extra_bytes: int) -> None:
        attempt = self._one_of(data, self.play.orders.fetching)
        if is_good:
            self.play.finish_attempt(attempt, load_extra_bytes)
        else:
            id_, _ = self.play.orders.fetching.pop(attempt)
            self.play.send(ev.FetchFailed(id_, attempt, play.BROKEN))

    @precondition(lambda self: self.play.orders.loading)
    @rule(
        data=st.data(),
        is_good=st.sampled_from([True, True, True, False]),
        load_s=st.sampled_from([0.0, 0.1, 5.0]),
    )
    def finish_load_of(self, data: st.DataObject, is_good: bool, load_s: float) -> None:
        key = self._one_of(data, self.play.orders.loading)
        if is_good:
            self.play.finish_load_of(key, load_s)
        else:
            del self.play.orders.loading[key]
            self.play.send(ev.CopyLoadFailed(key, play.BROKEN))

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """Let a process of its own die, in whatever phase its copy is."""
        keys = self.play.residency.copies
        if keys:
            self.play.send(ev.CopyDied(self._one_of(data, keys), play.KILLED))

    @precondition(lambda self: self.play.orders.freeing)
    @rule(data=st.data())
    def finish_free_of(self, data: st.DataObject) -> None:
        self.play.finish_free_of(self._one_of(data, self.play.orders.freeing))

    @precondition(lambda self: self.play.orders.offloading or self.play.orders.onloading)
    @rule(data=st.data(), is_good=st.sampled_from([True, True, False]))
    def answer_move(self, data: st.DataObject, is_good: bool) -> None:
        self._answer_move(
            self._one_of(data, [*self.play.orders.offloading, *self.play.orders.onloading]), is_good
        )

    def _answer_move(self, key: str, is_good: bool) -> None:
        orders = self.play.orders
        is_offloading = key in orders.offloading
        (orders.offloading if is_offloading else orders.onloading).pop(key)
        if not is_good:
            self.play.send(ev.DeviceMoveFailed(key))
        elif is_offloading:
            self.play.offloaded.add(key)
            self.play.send(ev.CopyOffloaded(key))
        else:
            self.play.offloaded.discard(key)
            self.play.send(ev.CopyOnloaded(key))

    # Admin requests, memory and time

    @rule(
        name=names,
        how=st.sampled_from([(False, False), (True, False), (True, True)]),
        host=hosts,
        gpu=gpus,
        hint=hosts,
        key=st.integers(0, 11),
    )
    def forget(
        self, name: str, how: tuple[bool, bool], host: int, gpu: int, hint: int, key: str
    ) -> None:
        is_replaced, keeps_copy = how
        gpu = gpu if self.gpu else 0
        if f"k{key}" not in self.play.artifacts_by_key:
            self.play.declare(
                name, host, gpu, hint=(hint, gpu), key=f"k{key}", can_offload=bool(self.gpu)
            )
        self.play.artifacts[play.id_of(name)] = self.play.artifacts_by_key[f"k{key}"]
        self.play.send(ev.ModelForgotten(play.id_of(name), is_replaced, keeps_copy))

    @rule(name=names)
    def request_previous(self, name: str) -> None:
        previous = version_choice.previous_id(play.id_of(name))
        if previous in self.play.residency.bindings:
            self.play.request_id(previous)

    @rule(key=st.integers(0, 11), host=hosts, gpu=gpus)
    def grow_or_shrink(self, key: str, host: int, gpu: int) -> None:
        """Change the footprint that the next load of an artifact measures."""
        if f"k{key}" in self.play.artifacts_by_key:
            self.play.artifacts_by_key[f"k{key}"].actual = model.Footprint(
                host, gpu if self.gpu else 0
            )

    @rule(name=names, is_pinned=st.booleans())
    def pin(self, name: str, is_pinned: bool) -> None:
        self.play.send(ev.PinSet(play.id_of(name), is_pinned))

    @rule(name=names)
    def unload(self, name: str) -> None:
        self.play.send(ev.UnloadRequested(play.id_of(name)))

    @rule(key=st.integers(0, 11), load_extra_bytes=st.sampled_from([0, 10, 60]))
    def set_load_extra(self, key: str, load_extra_bytes: int) -> None:
        self.play.send(ev.LoadOverheadKnown(f"k{key}", load_extra_bytes))

    @rule(overhead=st.sampled_from([-20, 0, 0, 5, 30, 80, 200]))
    def measure_memory(self, overhead: int) -> None:
        self.play.measure_memory(overhead)

    @rule(seconds=waits)
    def wait(self, seconds: float) -> None:
        self.play.wait(seconds)

    # The end of a run

    def teardown(self) -> None:
        self.play.measure_memory(0)
        assert any(not self._answer_all() for _ in range(ROUNDS_MAX)), (
            "commands never come to an end"
        )
        assert not any(request.is_waiting for request in self.play.requests.values())
        assert self.play.orders == play.Orders()
        final = {CopyPhase.READY, CopyPhase.OFFLOADED, CopyPhase.ABSENT, CopyPhase.FAILED}
        assert {copy.state for copy in self.play.residency.copies.values()} <= final
        assert all(
            isinstance(request.error, errors.MeshError | None)
            for request in self.play.requests.values()
        )

    def _answer_all(self) -> bool:
        """Answer all commands, end all leases, let time pass; return whether anything is left."""
        orders = self.play.orders
        for key in list(+self.play.leases):
            self.play.end_lease(key)
        for attempt in list(orders.fetching):
            self.play.finish_attempt(attempt)
        for key in list(orders.loading):
            self.play.finish_load_of(key)
        for key in list(orders.freeing):
            self.play.finish_free_of(key)
        for key in [*orders.offloading, *orders.onloading]:
            self._answer_move(key, is_good=True)
        self.play.wait(0.5)
        # As a worker does with each tick: what the process takes is known as a range during loads.
        self.play.measure_memory(0)
        return (
            orders != play.Orders()
            or any(self.play.leases.values())
            or any(request.is_waiting for request in self.play.requests.values())
        )


World.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestWorld = World.TestCase

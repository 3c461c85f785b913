"""The world around one residency: tests say what happens, and each step checks all invariants."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from meshserve import errors
from meshserve.core.memory import copies, eviction, residency
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model, process_death

KILLED = process_death.ProcessDeath(signal_name="SIGSEGV")
BROKEN = errors.LoadFailed("the file is broken")


@dataclass
class Artifact:
    """A model's artifact: the key of its copy, its hint, and the footprint that loads measure."""

    key: str
    hint: model.Footprint
    actual: model.Footprint
    can_offload: bool = False
    load_s: float = 0.0
    load_timeout_s: float = 10.0


@dataclass
class Request:
    """One request and its answer: the key of a leased copy, or an error."""

    ticket: int
    id: model.ModelId
    key: str | None = None
    error: errors.MeshError | None = None
    has_left: bool = False

    @property
    def is_waiting(self) -> bool:
        return self.key is None and self.error is None and not self.has_left

    @property
    def refusal(self) -> errors.MeshError:
        """The error of a request that was refused."""
        assert self.error is not None, f"{self} was not refused"
        return self.error


@dataclass
class Orders:
    """The commands that have not been answered yet."""

    fetching: dict[int, tuple[model.ModelId, Artifact]] = field(default_factory=dict)
    loading: dict[str, None] = field(default_factory=dict)
    freeing: dict[str, None] = field(default_factory=dict)
    offloading: dict[str, None] = field(default_factory=dict)
    onloading: dict[str, None] = field(default_factory=dict)


def id_of(name: str) -> model.ModelId:
    """Return the id of version 1 of a model."""
    return model.ModelId(name)


class Play:
    """A worker without processes, files and memory: tests send events and read the commands."""

    def __init__(
        self, host: int = 100, gpu: int = 0, policy: eviction.Policy = eviction.lru, **limits: Any
    ) -> None:
        self.now_s = 1000.0
        self.residency = residency.Residency(
            copies.WorkerLimits(model.Footprint(host, gpu), **limits), policy
        )
        self.artifacts: dict[model.ModelId, Artifact] = {}
        self.artifacts_by_key: dict[str, Artifact] = {}
        self.requests: dict[int, Request] = {}
        self.orders = Orders()
        self.in_memory: set[str] = set()
        self.offloaded: set[str] = set()
        self.leases: collections.Counter[str] = collections.Counter()
        self.reported: dict[model.ModelId, tuple[object, ...]] = {}
        self._tickets = itertools.count(1)

    # Events

    def declare(
        self,
        name: str,
        host: int = 10,
        gpu: int = 0,
        *,
        hint: tuple[int, int] | None = None,
        key: str | None = None,
        **fields: Any,
    ) -> None:
        """Give the model an artifact; its hint is its actual footprint unless `hint` is given."""
        actual = model.Footprint(host, gpu)
        artifact = Artifact(
            key or f"{name}!", model.Footprint(*hint) if hint else actual, actual, **fields
        )
        self.artifacts[id_of(name)] = artifact
        self.artifacts_by_key[artifact.key] = artifact

    def send(self, event: ev.Event) -> Sequence[ev.Command]:
        """Send an event, perform its commands and check all invariants."""
        commands = self.residency.handle(event, self.now_s)
        for command in commands:
            self._perform(command)
        self._check_free_memory(commands)
        self.residency.check()
        self._check_changed()
        return commands

    def request(self, name: str) -> Request:
        """Request a lease on a model."""
        return self.request_id(id_of(name))

    def request_id(self, id_: model.ModelId) -> Request:
        """Request a lease on a version of a model."""
        request = Request(next(self._tickets), id_)
        self.requests[request.ticket] = request
        self.send(ev.LeaseRequested(request.ticket, request.id))
        return request

    def leave(self, request: Request) -> None:
        """Let a client go before its answer."""
        request.has_left |= request.is_waiting
        self.send(ev.RequesterLeft(request.ticket))

    def release(self, *requests: Request) -> None:
        """End the leases of requests."""
        for request in requests:
            assert request.key is not None, f"{request} has no lease"
            self.end_lease(request.key)

    def end_lease(self, key: str) -> None:
        """End a lease on a copy."""
        self.leases[key] -= 1
        self.send(ev.LeaseReleased(key))

    def _oldest_attempt(self, name: str) -> int:
        return next(
            attempt for attempt, (id_, _) in self.orders.fetching.items() if id_ == id_of(name)
        )

    def finish_fetch(self, name: str) -> None:
        """Let the model's oldest fetch succeed."""
        self.finish_attempt(self._oldest_attempt(name))

    def finish_attempt(self, attempt: int, load_extra_bytes: int = 0) -> None:
        """Let a fetch succeed."""
        id_, artifact = self.orders.fetching.pop(attempt)
        self.send(
            ev.ArtifactFetched(
                id_,
                attempt,
                artifact.key,
                artifact.hint,
                artifact.load_s,
                artifact.can_offload,
                artifact.load_timeout_s,
                load_extra_bytes,
            )
        )

    def fail_fetch(self, name: str, error: errors.MeshError = BROKEN) -> None:
        """Let the model's oldest fetch fail."""
        attempt = self._oldest_attempt(name)
        del self.orders.fetching[attempt]
        self.send(ev.FetchFailed(id_of(name), attempt, error))

    def finish_load(self, name: str, load_s: float = 1.0) -> None:
        """Let the model's load succeed."""
        self.finish_load_of(self.key(name), load_s)

    def finish_load_of(self, key: str, load_s: float = 1.0) -> None:
        """Let a copy's load succeed."""
        del self.orders.loading[key]
        self.in_memory.add(key)
        self.send(ev.CopyLoaded(key, self.artifacts_by_key[key].actual, load_s))

    def fail_load(self, name: str, error: errors.MeshError = BROKEN) -> None:
        """Let the model's load fail."""
        key = self.key(name)
        del self.orders.loading[key]
        self.send(ev.CopyLoadFailed(key, error))

    def die(self, name: str) -> None:
        """Let the process of the model's copy be killed."""
        self.send(ev.CopyDied(self.key(name), KILLED))

    def finish_free(self, name: str) -> None:
        """Let the eviction of the model's copy end."""
        self.finish_free_of(self.key(name))

    def finish_free_of(self, key: str) -> None:
        """Let a copy's eviction end."""
        del self.orders.freeing[key]
        self.send(ev.CopyFreed(key))

    def finish_offload(self, name: str) -> None:
        """Let the move of the model's copy to host memory succeed."""
        key = self.key(name)
        del self.orders.offloading[key]
        self.offloaded.add(key)
        self.send(ev.CopyOffloaded(key))

    def finish_onload(self, name: str) -> None:
        """Let the move of the model's copy to the GPU succeed."""
        key = self.key(name)
        del self.orders.onloading[key]
        self.offloaded.discard(key)
        self.send(ev.CopyOnloaded(key))

    def fail_move(self, name: str) -> None:
        """Let the move of the model's copy between the devices fail."""
        key, orders = self.key(name), self.orders
        (orders.offloading if key in orders.offloading else orders.onloading).pop(key)
        self.send(ev.DeviceMoveFailed(key))

    def wait(self, seconds: float) -> None:
        """Let time pass, then fire the timer."""
        self.now_s += seconds
        self.send(ev.TimerFired())

    def measure_memory(self, overhead_bytes: int) -> None:
        """Let the process have so many bytes beside what is booked."""
        self.send(ev.MemoryMeasured(self.residency.account.booked.host_bytes + overhead_bytes))

    def load(self, *names: str) -> None:
        """Load models and use each once, a second apart."""
        for name in names:
            self.now_s += 1.0
            request = self.request(name)
            if self.orders.fetching:
                self.finish_fetch(name)
            if self.key(name) in self.orders.loading:
                self.finish_load(name)
            self.release(request)

    # State

    def key(self, name: str) -> str:
        """Return the key of a model's copy."""
        return self.artifacts[id_of(name)].key

    def copy(self, name: str) -> copies.Copy:
        """Return the record of a model's copy."""
        return self.residency.copies[self.key(name)]

    def state(self, name: str) -> str:
        """Return the phase of a model's copy as a word."""
        return self.copy(name).state.value

    @property
    def free_orders(self) -> list[str]:
        """The models whose eviction is ordered and has not ended."""
        return sorted(key.rstrip("!") for key in self.orders.freeing)

    # Commands

    def _perform(self, command: ev.Command) -> None:
        match command:
            case ev.FetchArtifact(id_, attempt):
                self.orders.fetching[attempt] = (id_, self.artifacts[id_])
            case ev.LoadCopy(key):
                assert key not in self.in_memory, f"{key} is loaded twice"
                assert key not in self.orders.loading, f"{key} is loading already"
                self.orders.loading[key] = None
            case ev.FreeCopy(key):
                self._free(key)
            case ev.OffloadCopy(key):
                assert key in self.in_memory - self.offloaded, f"{key} is not on the GPU"
                assert not self.leases[key], f"{key} is in use"
                self.orders.offloading[key] = None
            case ev.OnloadCopy(key):
                assert key in self.offloaded, f"{key} is not in host memory"
                self.orders.onloading[key] = None
            case ev.GrantLease(ticket, key):
                assert key in self.in_memory - self.offloaded, f"{key} is not ready"
                self._unanswered(ticket).key = key
                self.leases[key] += 1
            case ev.RefuseLease(ticket, error):
                self._unanswered(ticket).error = error

    def _free(self, key: str) -> None:
        assert key in self.in_memory, f"{key} is not in memory"
        assert not self.leases[key], f"{key} is in use"
        self.in_memory.discard(key)
        self.offloaded.discard(key)
        self.orders.freeing[key] = None

    def _unanswered(self, ticket: ev.Ticket) -> Request:
        assert isinstance(ticket, int)
        request = self.requests[ticket]
        assert request.is_waiting, f"{request} has had its answer"
        return request

    # Checks

    def _check_free_memory(self, commands: Sequence[ev.Command]) -> None:
        """Assert that what comes in was given memory that is free, not memory still to be freed."""
        free, kinds = self.residency.account.free, {type(command) for command in commands}
        assert free.host_bytes >= 0 or not kinds & {ev.LoadCopy, ev.OffloadCopy}
        assert free.gpu_bytes >= 0 or not kinds & {ev.LoadCopy, ev.OnloadCopy}

    def _check_changed(self) -> None:
        """Assert that a reporter that looks only at `changed` misses nothing."""
        bindings, changed = self.residency.bindings, self.residency.changed
        self.reported = {id_: seen for id_, seen in self.reported.items() if id_ not in changed}
        self.reported |= {id_: self._report(id_) for id_ in changed if id_ in bindings}
        changed.clear()
        assert self.reported == {id_: self._report(id_) for id_ in bindings}

    def _report(self, id_: model.ModelId) -> tuple[object, ...]:
        binding = self.residency.bindings[id_]
        if binding.key is None:
            return binding.is_fetching, binding.failure and binding.failure.error.message
        copy = self.residency.copies[binding.key]
        failure = copy.failure and copy.failure.error.message
        return copy.state, copy.booked, id_ in copy.pins, failure

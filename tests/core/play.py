"""A stage for residency: the world around one worker, whose answers come when the test says so. Every step checks every promise."""

from __future__ import annotations

import collections
import itertools
from dataclasses import dataclass, field

from meshserve import errors
from meshserve.core.memory import copies, eviction, residency
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model

BROKEN = errors.LoadFailed("the file is broken")


@dataclass
class Artifact:
    """What a model's name stands for: a key, a first guess of its footprint, and how big it really is."""

    key: str
    hint: model.Footprint
    really: model.Footprint
    can_offload: bool = False
    load_s: float = 0.0
    load_timeout_s: float = 10.0


@dataclass
class Request:
    """One request and what became of it."""

    ticket: int
    id: model.ModelId
    key: str | None = None
    error: errors.MeshError | None = None
    has_left: bool = False

    @property
    def is_waiting(self):
        return self.key is None and self.error is None and not self.has_left


@dataclass
class Orders:
    """What was ordered and is not answered yet."""

    fetching: dict[int, tuple[model.ModelId, Artifact]] = field(default_factory=dict)
    loading: dict[str, None] = field(default_factory=dict)
    freeing: dict[str, None] = field(default_factory=dict)
    parking: dict[str, None] = field(default_factory=dict)
    unparking: dict[str, None] = field(default_factory=dict)


def named(name):
    """The id of a model, whose version no test here cares about."""
    return model.ModelId(name)


class Play:
    """Tell it what happens; ask it what was ordered."""

    def __init__(self, host=100, gpu=0, policy=eviction.lru, **limits):
        self.now_s = 1000.0
        self.residency = residency.Residency(
            copies.WorkerLimits(model.Footprint(host, gpu), **limits), policy
        )
        self.artifacts: dict[model.ModelId, Artifact] = {}
        self.truth: dict[str, Artifact] = {}
        self.requests: dict[int, Request] = {}
        self.orders = Orders()
        self.in_memory: set[str] = set()
        self.parked: set[str] = set()
        self.leases = collections.Counter()
        self.shown: dict[model.ModelId, tuple] = {}
        self._waiters = itertools.count(1)

    # What happens

    def declare(self, name, host=10, gpu=0, *, hint=None, key=None, **more):
        """The model's artifact from now on; `hint` is guessed where it is not the real size."""
        really = model.Footprint(host, gpu)
        artifact = Artifact(
            key or f"{name}!", model.Footprint(*hint) if hint else really, really, **more
        )
        self.artifacts[named(name)] = artifact
        self.truth[artifact.key] = artifact

    def tell(self, event):
        """One event, and what is ordered because of it."""
        commands = self.residency.handle(event, self.now_s)
        for command in commands:
            self._take(command)
        self._check_room(commands)
        self.residency.check()
        self._check_changes()
        return commands

    def _take(self, command):
        """Note what was ordered."""
        match command:
            case ev.FetchArtifact():
                self._fetch(command)
            case ev.LoadCopy():
                self._load(command)
            case ev.FreeCopy():
                self._free(command)
            case ev.OffloadCopy():
                self._park(command)
            case ev.OnloadCopy():
                self._unpark(command)
            case ev.GrantLease():
                self._grant(command)
            case ev.RefuseLease():
                self._refuse(command)

    def _check_changes(self):
        """Who looks only at what has changed sees everything."""
        bindings, changed = self.residency.bindings, self.residency.changed
        self.shown = {id_: seen for id_, seen in self.shown.items() if id_ not in changed}
        self.shown |= {id_: self._look(id_) for id_ in changed if id_ in bindings}
        changed.clear()
        assert self.shown == {id_: self._look(id_) for id_ in bindings}

    def _look(self, id_):
        binding = self.residency.bindings[id_]
        if binding.key is None:
            return binding.is_fetching, binding.failure and binding.failure.error.message
        copy = self.residency.copies[binding.key]
        return (
            copy.state,
            copy.booked,
            id_ in copy.pins,
            copy.failure and copy.failure.error.message,
        )

    def ask(self, name):
        """A request for a model."""
        request = Request(next(self._waiters), named(name))
        self.requests[request.ticket] = request
        self.tell(ev.LeaseRequested(request.ticket, request.id))
        return request

    def leave(self, request):
        """The caller is gone."""
        request.has_left |= request.is_waiting
        self.tell(ev.RequesterLeft(request.ticket))

    def release(self, *requests):
        """Requests are done with their copies."""
        for request in requests:
            self.end_lease(request.key)

    def end_lease(self, key):
        self.leases[key] -= 1
        self.tell(ev.LeaseReleased(key))

    def fetched(self, name):
        """The oldest fetch for the model succeeds."""
        attempt = next(
            attempt for attempt, (id_, _) in self.orders.fetching.items() if id_ == named(name)
        )
        self.answer_fetch(attempt)

    def answer_fetch(self, attempt, load_extra_bytes=0):
        id_, artifact = self.orders.fetching.pop(attempt)
        more = {
            "load_s": artifact.load_s,
            "can_offload": artifact.can_offload,
            "load_timeout_s": artifact.load_timeout_s,
        }
        self.tell(
            ev.ArtifactFetched(
                id_, attempt, artifact.key, artifact.hint, load_extra_bytes=load_extra_bytes, **more
            )
        )

    def fetch_failed(self, name, error=BROKEN):
        """The oldest fetch for the model fails."""
        attempt = next(
            attempt for attempt, (id_, _) in self.orders.fetching.items() if id_ == named(name)
        )
        del self.orders.fetching[attempt]
        self.tell(ev.FetchFailed(named(name), attempt, error))

    def loaded(self, name, load_s=1.0):
        """The model's load ends well."""
        self.answer_load(self.key(name), load_s)

    def answer_load(self, key, load_s=1.0):
        del self.orders.loading[key]
        self.in_memory.add(key)
        self.tell(ev.CopyLoaded(key, self.truth[key].really, load_s))

    def load_failed(self, name, error=BROKEN):
        """The model's load ends in an error."""
        key = self.key(name)
        del self.orders.loading[key]
        self.tell(ev.CopyLoadFailed(key, error))

    def freed(self, name):
        """The model's memory is free again."""
        self.answer_free(self.key(name))

    def answer_free(self, key):
        del self.orders.freeing[key]
        self.tell(ev.CopyFreed(key))

    def has_parked(self, name):
        """The model is in host memory alone."""
        key = self.key(name)
        del self.orders.parking[key]
        self.parked.add(key)
        self.tell(ev.CopyOffloaded(key))

    def has_unparked(self, name):
        """The model is back on the GPU."""
        key = self.key(name)
        del self.orders.unparking[key]
        self.parked.discard(key)
        self.tell(ev.CopyOnloaded(key))

    def move_failed(self, name):
        """The model got lost between the devices."""
        key = self.key(name)
        (self.orders.parking if key in self.orders.parking else self.orders.unparking).pop(key)
        self.tell(ev.DeviceMoveFailed(key))

    def wait(self, seconds):
        """Time goes by, and the worker looks at its clock."""
        self.now_s += seconds
        self.tell(ev.TimerFired())

    def see(self, overhead):
        """The process takes so many bytes beside what is booked."""
        self.tell(ev.MemoryMeasured(self.residency.account.booked.host_bytes + overhead))

    def bring(self, *names):
        """Models come into memory, used once, a second apart."""
        for name in names:
            self.now_s += 1.0
            request = self.ask(name)
            if self.orders.fetching:
                self.fetched(name)
            if self.key(name) in self.orders.loading:
                self.loaded(name)
            self.release(request)

    # What there is

    def key(self, name):
        """The key of a model's copy."""
        return self.artifacts[named(name)].key

    def copy(self, name):
        """The record of a model's copy."""
        return self.residency.copies[self.key(name)]

    def state(self, name):
        """The state of a model's copy, as a word."""
        return self.copy(name).state.value

    @property
    def free_orders(self):
        """The models whose memory is to be freed."""
        return sorted(key.rstrip("!") for key in self.orders.freeing)

    # What is ordered

    def _fetch(self, command):
        self.orders.fetching[command.attempt] = (command.id, self.artifacts[command.id])

    def _load(self, command):
        assert command.key not in self.in_memory, f"{command.key} is loaded twice"
        assert command.key not in self.orders.loading, f"{command.key} is loading already"
        self.orders.loading[command.key] = None

    def _free(self, command):
        assert command.key in self.in_memory, f"{command.key} is not there"
        assert not self.leases[command.key], f"{command.key} is in use"
        self.in_memory.discard(command.key)
        self.parked.discard(command.key)
        self.orders.freeing[command.key] = None

    def _park(self, command):
        assert command.key in self.in_memory - self.parked, f"{command.key} is not on the GPU"
        assert not self.leases[command.key], f"{command.key} is in use"
        self.orders.parking[command.key] = None

    def _unpark(self, command):
        assert command.key in self.parked, f"{command.key} is not parked"
        self.orders.unparking[command.key] = None

    def _grant(self, command):
        request = self.requests[command.ticket]
        assert request.is_waiting, f"{request} has had its answer"
        assert command.key in self.in_memory - self.parked, f"{command.key} is not ready"
        request.key = command.key
        self.leases[command.key] += 1

    def _refuse(self, command):
        request = self.requests[command.ticket]
        assert request.is_waiting, f"{request} has had its answer"
        request.error = command.error

    def _check_room(self, commands):
        """What is brought in has its room already, whatever is still to be freed."""
        room, kinds = self.residency.account.free, {type(command) for command in commands}
        assert room.host_bytes >= 0 or not kinds & {ev.LoadCopy, ev.OffloadCopy}
        assert room.gpu_bytes >= 0 or not kinds & {ev.LoadCopy, ev.OnloadCopy}

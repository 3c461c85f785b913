"""Copies whose code may end processes: what workers have found, and what the controller says of it.

A `key` names a copy by its content (`residency_events`), so a changed artifact is beyond suspicion.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.core import backoff
from meshserve.core.values import model

PROBATION = backoff.BackoffPolicy(base_s=20.0, cap_s=3600.0)
"""How long a suspect runs alone, longer with each death in which it ran.

Envoy's last retry of a request comes some 2 s after the first try, and the retries of clients
within seconds: all of them must meet a suspect that can end no worker.
"""


@dataclass(frozen=True, slots=True)
class CopySuspected:
    """The copy ran when a worker died: it runs alone for `probation_s` seconds at least."""

    key: str
    probation_s: float


@dataclass(frozen=True, slots=True)
class SuspicionEnded:
    """The copy has run alone, and nothing died: it runs in workers again."""

    key: str


@dataclass(frozen=True, slots=True)
class CopyQuarantined:
    """The copy has ended its own process: it is not run until it is released.

    `ids` are the models that were found to have this copy, and `reason` tells users what happened.
    """

    key: str
    ids: tuple[model.ModelId, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class QuarantineEnded:
    """A user has released the copy: it is a suspect, and runs alone at first."""

    key: str


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """What a worker has found by running a suspect alone: with an empty `reason`, that it lives.

    Otherwise `reason` is how it ended its process. Also a refusal of another model with a copy that
    is in quarantine is told so, with that model's `id`.
    """

    key: str
    id: model.ModelId
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HungCopy:
    """A copy with runs in threads of a worker that go on long after their last caller has left.

    `ids` are the models that had the copy. `runs` hang now, the oldest for `oldest_s` seconds, and
    `total` were found to hang since the worker began.
    """

    key: str
    ids: tuple[model.ModelId, ...]
    runs: int
    total: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class MemoryHog:
    """A copy that ran when its worker took far more memory than its budget.

    It may have been another one that ran at the same time. `ids` are the models that had the copy,
    `times` how often since the worker began, `peak_bytes` what the worker took the last time.
    `is_suspect`: so often that it is tried alone.
    """

    key: str
    ids: tuple[model.ModelId, ...]
    times: int
    peak_bytes: int
    is_suspect: bool


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """The end of a worker's process that had not stopped in good order.

    `keys` are those of the copies whose code ran in it, in no order; any of them may have caused
    the end, or none. `signal` is the name of the signal that the process itself noted, such as
    SIGSEGV; it is empty after SIGKILL and after an exit, of which no process can take a note.
    """

    worker_id: str
    pid: int
    keys: tuple[str, ...] = ()
    signal: str = ""

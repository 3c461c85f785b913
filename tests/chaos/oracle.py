"""What each model may answer at each moment, and which failures the faults of that moment excuse.

A content of a model is its factor: every model of the chaos run multiplies its input by one, so one
answer tells which content gave it. `ABSENT` is a model that is not registered.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.chaos import stalls

ABSENT = math.inf
"""The factor of a model that is not registered: its requests must get 404."""
ANSWER = "answered"
"""The outcome of a request that got one; other outcomes are the status, such as "503"."""

SLOW_S = 15.0
"""Right answers that took longer are told: nothing waits so long on a machine of its own."""

Clock = Callable[[], float]


@dataclass
class Content:
    """A factor that is right for requests that end after `from_s` and are sent before `until_s`."""

    factor: float
    from_s: float
    until_s: float = math.inf


class Subject:
    """One model's name, and the contents that it has had. Times are those of `clock`."""

    def __init__(self, name: str, factor: float, clock: Clock = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._contents = [Content(factor, -math.inf)]

    @property
    def factor(self) -> float:
        """The newest content."""
        return self._contents[-1].factor

    def begin(self, factor: float) -> None:
        """Allow a new content from now on; the ones before it stay right until `settle`."""
        self._contents.append(Content(factor, self._clock()))

    def settle(self, grace_s: float = 0.0) -> None:
        """Allow only the newest content for requests that are sent `grace_s` from now or later."""
        until_s = self._clock() + grace_s
        for content in self._contents[:-1]:
            content.until_s = min(content.until_s, until_s)

    def allowed(self, sent_s: float, ended_s: float) -> set[float]:
        """Return the factors that a request between these times may meet."""
        return {
            content.factor
            for content in self._contents
            if content.from_s <= ended_s and sent_s < content.until_s
        }

    def is_right(self, outcome: Outcome, factors: set[float]) -> bool:
        """Tell whether the outcome is one of these contents', every value of it."""
        if outcome.answer is None:
            return outcome.status == "404" and ABSENT in factors
        return any(
            np.array_equal(outcome.answer, outcome.asked * np.float32(factor))
            for factor in factors - {ABSENT}
        )


@dataclass(frozen=True)
class Outcome:
    """What came of one request. `answer` is None where it failed."""

    subject: Subject
    way: str
    asked: np.ndarray
    sent_s: float
    ended_s: float
    status: str = ANSWER
    text: str = ""
    answer: np.ndarray | None = None

    @property
    def took_s(self) -> float:
        """Return the time from the request to its end."""
        return self.ended_s - self.sent_s


@dataclass
class Allowance:
    """What one stroke of a fault excuses: the statuses, whose, and between which times.

    `name` of a subject: of its requests only; "" of all. Requests that overlap the time count.
    """

    fault: str
    begin_s: float
    end_s: float
    statuses: frozenset[str] = frozenset()
    name: str = ""
    failed: int = 0
    slowest_s: float = 0.0
    back_s: float = 0.0

    def overlaps(self, outcome: Outcome) -> bool:
        """Tell whether the request was under way while the fault could be felt."""
        return outcome.sent_s <= self.end_s and outcome.ended_s >= self.begin_s

    def excuses(self, outcome: Outcome) -> bool:
        """Tell whether the failure is one that the fault may cause."""
        is_its = self.name in ("", outcome.subject.name)
        return is_its and outcome.status in self.statuses and self.overlaps(outcome)


@dataclass(frozen=True)
class Failure:
    """What nothing excuses but perhaps a machine that stood still meanwhile, and when it was."""

    begin_s: float
    end_s: float
    text: str


@dataclass
class Judge:
    """Counts right answers, and keeps what nothing excuses."""

    clock: Clock = time.monotonic
    answered: int = 0
    slowest_s: float = 0.0
    ways: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stalled: list[Failure] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    allowances: list[Allowance] = field(default_factory=list)
    begin_s: float = field(default_factory=time.monotonic)

    def allow(
        self, fault: str, limit_s: float, statuses: frozenset[str] = frozenset(), name: str = ""
    ) -> Allowance:
        """Excuse such failures from now on, for `limit_s`."""
        now_s = self.clock()
        allowance = Allowance(fault, now_s, now_s + limit_s, statuses, name)
        self.allowances.append(allowance)
        return allowance

    def decide(self, outcome: Outcome) -> None:
        """Count the outcome as right, excused, wrong or failed."""
        for allowance in self._felt(outcome):
            allowance.slowest_s = max(allowance.slowest_s, outcome.took_s)
        factors = outcome.subject.allowed(outcome.sent_s, outcome.ended_s)
        if outcome.subject.is_right(outcome, factors):
            self.answered += 1
            self.slowest_s = max(self.slowest_s, outcome.took_s)
            if outcome.took_s > SLOW_S:
                self.slow.append(self._described(outcome))
            self.ways[outcome.way] = self.ways.get(outcome.way, 0) + 1
        elif outcome.answer is not None:
            self.wrong.append(f"{self._described(outcome)}: {_ratio(outcome)}, not {factors}")
        else:
            self._failed(outcome)

    def _failed(self, outcome: Outcome) -> None:
        excuse = next((known for known in self._felt(outcome) if known.excuses(outcome)), None)
        if excuse is None:
            text = f"{self._described(outcome)}: {outcome.status}: {outcome.text[:300]}"
            self.failures.append(Failure(outcome.sent_s, outcome.ended_s, text))
        else:
            excuse.failed += 1

    def complain(self, text: str, since_s: float | None = None) -> None:
        """Keep a failure that is no request's of the traffic: of now, or of what began then."""
        now_s = self.clock()
        begin_s = now_s if since_s is None else since_s
        self.failures.append(Failure(begin_s, now_s, f"{now_s - self.begin_s:.1f} s: {text}"))

    def set_apart(self, pauses: Sequence[stalls.Stall]) -> None:
        """Count failures apart that may come of the machine's own stalls."""
        for failure in list(self.failures):
            if any(pause.overlaps((failure.begin_s, failure.end_s)) for pause in pauses):
                self.failures.remove(failure)
                self.stalled.append(failure)

    def _felt(self, outcome: Outcome) -> Iterator[Allowance]:
        return (known for known in reversed(self.allowances) if known.overlaps(outcome))

    def _described(self, outcome: Outcome) -> str:
        sent_s, took_s = outcome.sent_s - self.begin_s, outcome.took_s
        felt = ", ".join(known.fault for known in itertools.islice(self._felt(outcome), 4))
        return (
            f"{sent_s:.1f} s: {outcome.subject.name} by {outcome.way} after {took_s:.2f} s "
            f"(during: {felt or 'nothing'})"
        )


def _ratio(outcome: Outcome) -> str:
    """Return what the answer multiplied by, or how it differs in shape."""
    answer = outcome.answer
    if answer is None or answer.shape != outcome.asked.shape:
        return f"shape {None if answer is None else answer.shape}, not {outcome.asked.shape}"
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.unique(np.round(answer / outcome.asked, 3))
    return f"factors {ratios[:5].tolist()}"

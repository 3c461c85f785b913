"""What may be answered: which contents each name may have, as far as its changes are known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.simulation import callers, contents

ABSENT = -1
"""In place of a content's number: the version is not declared."""

INVALID, NOT_FOUND, LOAD_FAILED, RAISED = 3, 5, 9, 13
UNSURE = {callers.UNAVAILABLE, callers.DEADLINE_EXCEEDED}


class Wrong(AssertionError):
    """An answer that nothing explains."""


@dataclass
class Fact:
    """One version of a model: the numbers of contents that it may have now.

    `open` counts the changes whose outcome is not known yet. `lingering` are contents from before
    that may answer until the present one is loaded. `late` are those by which workers may answer
    that have not taken the last change, which the user was told at `late_s`.
    """

    possible: set[int] = field(default_factory=lambda: {ABSENT})
    open: int = 0
    lingering: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    late_s: float = 0.0

    @property
    def is_sure(self) -> bool:
        """Return whether it is known what is declared."""
        return self.open == 0 and len(self.possible) == 1

    @property
    def content(self) -> int:
        """Return what is declared, which must be known."""
        (number,) = self.possible
        return number


@dataclass(eq=False)
class Request:
    """A request on its way. `allowed` has the contents that may answer it by version."""

    name: str
    version: str
    value: float
    sent_s: float
    allowed: dict[str, set[int]] = field(default_factory=dict)
    may_be_absent: bool = False


class Oracle:
    """Follows all changes and requests. Contents are known by their numbers."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Fact]] = {}
        self.contents: dict[int, contents.Content] = {}
        self.outcomes: dict[str, int] = {}
        self.troubled_until_s = -math.inf
        self._requests: dict[Request, None] = {}
        self._served: dict[tuple[int, str, str], tuple[float, int]] = {}
        self._superseded: dict[str, dict[str, set[int]]] = {}
        self._order: dict[tuple[str, str, int], int] = {}

    # Changes

    def fact(self, name: str, version: str) -> Fact:
        """Return what is known of a version."""
        return self.facts.setdefault(name, {}).setdefault(version, Fact())

    def begin_change(self, name: str, version: str, number: int) -> None:
        """Note that a change to this content was requested."""
        fact = self.fact(name, version)
        fact.possible.add(number)
        fact.open += 1
        self._order[name, version, number] = len(self._order)
        self._widen(name)

    def end_change(self, name: str, version: str) -> None:
        """Note that a change has ended, one way or another."""
        self.fact(name, version).open -= 1

    def delay(self, name: str, version: str, now_s: float) -> None:
        """Note that a change was not acknowledged, so that workers may answer as before."""
        fact = self.fact(name, version)
        fact.late |= fact.possible | fact.lingering
        fact.late_s = now_s

    def acknowledge(self, begun_s: float) -> None:
        """Note that a change that was requested at `begun_s` was acknowledged.

        Then all changes before it are taken too.
        """
        for versions in self.facts.values():
            for fact in versions.values():
                if fact.late_s < begun_s:
                    fact.late.clear()

    def settle(self, name: str, version: str, number: int) -> None:
        """Note what is declared now that no change is open."""
        fact = self.fact(name, version)
        if fact.open:
            return
        if number not in fact.possible:
            raise Wrong(f"{name}:{version} has {number}, and {fact.possible} are possible")
        before = fact.possible - {ABSENT, number}
        fact.possible = {number}
        if number != ABSENT:
            # A worker that has not taken a removal takes the two for a replacement.
            fact.lingering |= before | fact.late - {ABSENT, number}
        elif self._is_absent(name):
            for other in self.facts[name].values():
                other.lingering.clear()
            self._superseded.pop(name, None)
        else:
            # A version that was taken away answers until a newer one is loaded.
            kept = self._superseded.setdefault(name, {}).setdefault(version, set())
            kept |= before | fact.lingering
            fact.lingering = set()
        self._widen(name)

    def _is_absent(self, name: str) -> bool:
        return all(fact.possible == {ABSENT} for fact in self.facts.get(name, {}).values())

    # Requests

    def begin_request(self, request: Request) -> None:
        """Note that a request is on its way."""
        self._requests[request] = None
        self._allow(request)

    def _widen(self, name: str) -> None:
        for request in self._requests:
            if request.name == name:
                self._allow(request)

    def _allow(self, request: Request) -> None:
        facts = self.facts.get(request.name, {})
        for version, fact in facts.items():
            if request.version in ("", version):
                allowed = request.allowed.setdefault(version, set())
                allowed |= (fact.possible | fact.lingering | fact.late) - {ABSENT}
        if not request.version:
            for version, numbers in self._superseded.get(request.name, {}).items():
                request.allowed.setdefault(version, set()).update(numbers)
        chosen = [fact for v, fact in facts.items() if request.version in ("", v)]
        request.may_be_absent |= all(ABSENT in fact.possible | fact.late for fact in chosen)

    def judge(self, request: Request, outcome: callers.Outcome, now_s: float) -> None:
        """Raise Wrong if nothing explains the outcome of a request."""
        del self._requests[request]
        if outcome.code == 0:
            self._judge_answer(request, outcome, now_s)
        elif outcome.code not in UNSURE:
            self._judge_error(request, outcome)
        kind = f"code {outcome.code}" if outcome.code else "answered"
        self.outcomes[kind] = self.outcomes.get(kind, 0) + 1

    def _judge_answer(self, request: Request, outcome: callers.Outcome, now_s: float) -> None:
        what = f"{request} was answered by {outcome}"
        if outcome.echo != request.value or request.value < 0:
            raise Wrong(f"{what}: this is the answer to another request")
        if outcome.content not in request.allowed.get(outcome.version, ()):
            raise Wrong(f"{what}: this content is not allowed")
        if not self._may_answer(outcome.content, request.value):
            raise Wrong(f"{what}: this content can't answer")
        place = (outcome.pid, request.name, outcome.version)
        order = self._order[request.name, outcome.version, outcome.content]
        since_s, newest = self._served.get(place, (0.0, -1))
        if order < newest and request.sent_s > since_s:
            raise Wrong(f"{what}: the worker has answered by a newer content before")
        if order > newest:
            self._served[place] = now_s, order

    def _may_answer(self, number: int, value: float) -> bool:
        content = self.contents[number]
        is_killed = content.kills == "load" or (content.kills and value == contents.KILLER)
        return not (content.is_broken or content.hangs or is_killed)

    def _judge_error(self, request: Request, outcome: callers.Outcome) -> None:
        explain = {
            NOT_FOUND: self._is_absence_explained,
            LOAD_FAILED: self._is_failure_explained,
            RAISED: self._is_raise_explained,
        }.get(outcome.code)
        if explain is None or not explain(request, outcome):
            raise Wrong(f"{request} was answered by {outcome}, which nothing explains")

    def _candidates(self, request: Request) -> list[contents.Content]:
        return [self.contents[n] for numbers in request.allowed.values() for n in numbers]

    def _is_absence_explained(self, request: Request, _: callers.Outcome) -> bool:
        return request.may_be_absent

    def _is_failure_explained(self, request: Request, outcome: callers.Outcome) -> bool:
        candidates = self._candidates(request)
        if "quarantine" in outcome.message:
            return any(content.kills for content in candidates)
        is_bad = not all(content.is_good for content in candidates)
        return is_bad or request.sent_s < self.troubled_until_s

    def _is_raise_explained(self, request: Request, outcome: callers.Outcome) -> bool:
        is_own = request.value < 0 and contents.RAISED in outcome.message
        return is_own or any(content.kills for content in self._candidates(request))

    # The end

    def expected(self, name: str, version: str) -> set[int]:
        """Return the contents by which a request is answered once all faults are over.

        An empty set: it is refused. What is not good may answer some requests.
        """
        facts = self.facts.get(name, {})
        numbers = [
            fact.content
            for v, fact in sorted(facts.items(), reverse=True)
            if fact.content != ABSENT and version in ("", v)
        ]
        expected = set()
        for number in numbers:
            expected.add(number)
            if self.contents[number].is_good:
                return expected
        return expected

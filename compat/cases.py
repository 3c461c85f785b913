"""Cases: a question that a peer's client asks of a mesh, and the check of its answer."""

from __future__ import annotations

import functools
import itertools
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from compat import world

REASON_MAX = 300
ATTRIBUTE = "compat_cases"

Check = Callable[[world.World], object]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Case:
    """One question.

    `kind` groups the cases of a peer in the table, and `source` names what it is made after: a
    document or a suite of the peer. `check` raises if the answer is wrong. A refusal's check
    returns the error's text. `needs` is the environment of the peer's client, "" for our own.
    """

    peer: str
    kind: str
    name: str
    source: str
    check: Check
    needs: str = ""
    is_refusal: bool = False

    @property
    def title(self) -> str:
        """Peer, kind and name in one line."""
        return f"{self.peer}, {self.kind}, {self.name}"


@dataclass(frozen=True)
class Outcome:
    """How a case ended: `failure` is "" if it passed; `text` is what a refusal said."""

    case: Case
    failure: str = ""
    text: str = ""


def case(peer: str, kind: str, source: str, needs: str = "") -> Callable[[Function], Function]:
    """Return a decorator that makes a case of a check."""
    return _marked(lambda check: [Case(peer, kind, _words(check), source, check, needs)])


def both(peer: str, kind: str, source: str) -> Callable[[Function], Function]:
    """Return a decorator that makes a case for each of Triton's protocols of a check.

    The check's second argument is the protocol.
    """
    return swept(peer, kind, source, world.PROTOCOLS)


def swept(
    peer: str, kind: str, source: str, *values: Iterable[Any]
) -> Callable[[Function], Function]:
    """Return a decorator that makes a case of a check for each combination of values.

    They are the check's further arguments.
    """
    combined = list(itertools.product(*values))
    return _marked(
        lambda check: [
            Case(
                peer,
                kind,
                f"{_words(check)}: {', '.join(map(str, chosen))}",
                source,
                functools.partial(_call, check, chosen),
            )
            for chosen in combined
        ]
    )


def refusal(peer: str, kind: str, source: str) -> Callable[[Function], Function]:
    """Return a decorator that makes a case of a check that returns an error's text."""
    return _marked(lambda check: [Case(peer, kind, _words(check), source, check, is_refusal=True)])


def _call(check: Callable[..., Any], more: tuple[Any, ...], asked: world.World) -> object:
    return check(asked, *more)


def _words(check: Callable[..., Any]) -> str:
    return check.__name__.replace("_", " ")


def _marked(make: Callable[[Callable[..., Any]], list[Case]]) -> Callable[[Function], Function]:
    def mark(check: Function) -> Function:
        setattr(check, ATTRIBUTE, make(check))
        return check

    return mark


def in_module(module: ModuleType) -> list[Case]:
    """Return the cases of a module in the order in which they are written."""
    return [written for value in vars(module).values() for written in getattr(value, ATTRIBUTE, ())]


def run(asked: world.World, chosen: Iterable[Case]) -> Iterator[Outcome]:
    """Run cases one after the other; none ends the run."""
    for one in chosen:
        yield outcome_of(one, asked)


def outcome_of(chosen: Case, asked: world.World) -> Outcome:
    """Run a case: whatever it raises is its failure."""
    try:
        answer = chosen.check(asked)
    except Exception as error:  # noqa: BLE001 - clients raise errors of their own
        # Where the models were lies on one machine alone.
        return Outcome(chosen, _reason(error).replace(str(asked.folder), "FOLDER"))
    if chosen.is_refusal and not answer:
        return Outcome(chosen, "it was not refused")
    return Outcome(chosen, text=str(answer) if chosen.is_refusal else "")


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, AssertionError) and not words:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        words = f"not so: {frame.line}"
    return f"{type(error).__name__}: {words}"[:REASON_MAX]

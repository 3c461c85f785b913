"""How a mesh comes up, as it is seen: a live list of steps on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from meshserve.cli import units

STEPS = ("ray", "controller", "workers", "gateway", "models")
TENTHS = 10
WORDS_OF_ONE = {False: "starting", True: "ready"}
WORDS = {"ray": "Ray", "models": "models registered", "llms": "LLMs ready"}


class ProgressView(Protocol):
    """What `app.up` reports: `done` of `total` of a step are done; `detail` adds what a reader may want to know."""

    @property
    def step(self) -> str:
        """One of STEPS."""
        ...

    @property
    def done(self) -> int:
        """How many are done."""
        ...

    @property
    def total(self) -> int:
        """How many there are."""
        ...

    @property
    def detail(self) -> str:
        """A few words, or nothing."""
        ...


Report = Callable[[ProgressView], None]


@contextlib.contextmanager
def shown(console: Console, is_plain: bool) -> Iterator[Report]:
    """A function to report progress to while the context lasts."""
    if is_plain or not console.is_terminal:
        yield Lines(console).report
        return
    steps = Steps(time.monotonic)
    with Live(steps, console=console, refresh_per_second=10):
        yield steps.report


class Lines:
    """A line for each tenth of a step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, int] = {}

    def report(self, progress: ProgressView) -> None:
        """Print it, unless a line of its step said nearly the same."""
        tenth = TENTHS * progress.done // max(progress.total, 1)
        if self._last.get(progress.step) != tenth:
            self._last[progress.step] = tenth
            self._console.print(
                f"{WORDS.get(progress.step, progress.step)}: {said(progress)}", soft_wrap=True
            )


class Steps:
    """The steps one below the other, each with a mark, what is done of it, and the time that it took. A renderable."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest: dict[str, ProgressView] = {}
        self._begun_s: dict[str, float] = {}
        self._took_s: dict[str, float] = {}
        self._spinner = Spinner("dots")

    def report(self, progress: ProgressView) -> None:
        """Take it into the picture."""
        now_s = self._clock()
        self._latest[progress.step] = progress
        begun_s = self._begun_s.setdefault(progress.step, now_s)
        if is_done(progress):
            self._took_s.setdefault(progress.step, now_s - begun_s)

    def __rich__(self) -> Table:
        drawn = Table.grid(padding=(0, 1))
        for step in (*STEPS, *(other for other in self._latest if other not in STEPS)):
            progress = self._latest.get(step)
            words = said(progress) if progress else ""
            drawn.add_row(
                self._mark(step),
                Text(WORDS.get(step, step), "" if progress else "dim"),
                Text(words, "dim"),
                self._time(step),
            )
        return drawn

    def _mark(self, step: str) -> Text | Spinner:
        if step in self._took_s:
            return Text("✓", "green")
        return self._spinner if step in self._latest else Text("·", "dim")

    def _time(self, step: str) -> Text:
        return Text(units.duration(self._took_s[step]) if step in self._took_s else "", "dim")


def is_done(progress: ProgressView) -> bool:
    """Whether nothing is left of the step."""
    return progress.done >= progress.total


def said(progress: ProgressView) -> str:
    """`1 of 2`, `ready` or `none`, with the detail."""
    words = (
        f"{progress.done:,} of {progress.total:,}"
        if progress.total > 1
        else WORDS_OF_ONE[is_done(progress)]
    )
    if not progress.total:
        words = "none"
    return f"{words}, {progress.detail}" if progress.detail else words

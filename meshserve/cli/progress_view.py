"""The progress of a start: a live list of steps on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from meshserve.cli import units
from meshserve.launch import start_status

STEPS = ("ray", "controller", "workers", "gateway", "models")
TITLES = {"ray": "Ray", "models": "models registered", "llms": "LLMs ready"}

Report = Callable[[start_status.StartProgress], None]


@contextlib.contextmanager
def shown(console: Console, is_plain: bool) -> Iterator[Report]:
    """Yield a function that shows the progress it is called with."""
    # A file or a pipe would keep every redraw of a live list.
    if is_plain or not console.is_terminal:
        yield ProgressLines(console).report
        return
    steps = ProgressList(time.monotonic)
    with Live(steps, console=console, refresh_per_second=10):
        yield steps.report


class ProgressLines:
    """Prints a line for each tenth of a step: thousands of models are not thousands of lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenths: dict[str, int] = {}

    def report(self, progress: start_status.StartProgress) -> None:
        """Print the progress, unless the step has not gone on by a tenth."""
        tenths = 10 * progress.done // max(progress.total, 1)
        if self._tenths.get(progress.step) != tenths:
            self._tenths[progress.step] = tenths
            title = TITLES.get(progress.step, progress.step)
            self._console.print(f"{title}: {words(progress)}", soft_wrap=True)


class ProgressList:
    """A renderable list of all steps, each with a mark, what is done of it, and its duration."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest: dict[str, start_status.StartProgress] = {}
        self._begun_s: dict[str, float] = {}
        self._took_s: dict[str, float] = {}
        self._spinner = Spinner("dots")

    def report(self, progress: start_status.StartProgress) -> None:
        """Take the progress into the list."""
        now_s = self._clock()
        self._latest[progress.step] = progress
        begun_s = self._begun_s.setdefault(progress.step, now_s)
        if is_done(progress):
            # Only once: a step that is reported again keeps its duration.
            self._took_s.setdefault(progress.step, now_s - begun_s)

    def __rich__(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for step in (*STEPS, *(step for step in self._latest if step not in STEPS)):
            progress = self._latest.get(step)
            took_s = self._took_s.get(step)
            grid.add_row(
                self._mark(step),
                Text(TITLES.get(step, step), "" if progress else "dim"),
                Text(words(progress) if progress else "", "dim"),
                Text("" if took_s is None else units.duration(took_s), "dim"),
            )
        return grid

    def _mark(self, step: str) -> Text | Spinner:
        if step in self._took_s:
            return Text("✓", "green")
        return self._spinner if step in self._latest else Text("·", "dim")


def is_done(progress: start_status.StartProgress) -> bool:
    """Return whether the step is complete."""
    return progress.done >= progress.total


def words(progress: start_status.StartProgress) -> str:
    """Return `1 of 2`, `ready`, `starting` or `none`, followed by the detail."""
    if not progress.total:
        text = "none"
    elif progress.total > 1:
        text = f"{progress.done:,} of {progress.total:,}"
    else:
        text = "ready" if is_done(progress) else "starting"
    return f"{text}, {progress.detail}" if progress.detail else text

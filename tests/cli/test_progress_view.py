from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from meshserve.cli import progress_view
from meshserve.launch import start_status


def step_of(step: Any, done: Any = 0, total: Any = 1, detail: Any = "") -> Any:
    return start_status.StartProgress(step, done, total, detail)


def console(**more: Any) -> Any:
    return Console(file=io.StringIO(), width=80, **more)


def written(console_: Any) -> Any:
    return console_.file.getvalue()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (step_of("ray"), "starting"),
        (step_of("ray", 1, 1, "started here"), "ready, started here"),
        (step_of("workers", 1, 2), "1 of 2"),
        (step_of("models", 1200, 5000), "1,200 of 5,000"),
        (step_of("models", 0, 0), "none"),
    ],
)
def test_words(step: Any, words: str) -> None:
    assert progress_view.words(step) == words


def test_a_pipe_gets_a_line_for_each_change() -> None:
    out = console()
    with progress_view.shown(out, is_plain=False) as report:
        for step in (
            step_of("ray"),
            step_of("ray"),
            step_of("ray", 1),
            step_of("workers", 1, 2),
            step_of("models", 2, 2),
        ):
            report(step)
    assert written(out).splitlines() == [
        "Ray: starting",
        "Ray: ready",
        "workers: 1 of 2",
        "models registered: 2 of 2",
    ]


def test_thousands_of_models_are_not_thousands_of_lines() -> None:
    out = console()
    with progress_view.shown(out, is_plain=True) as report:
        for done in range(5001):
            report(step_of("models", done, 5000))
    lines = written(out).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (
        11,
        "models registered: 0 of 5,000",
        "models registered: 5,000 of 5,000",
    )


def test_the_list_shows_done_running_and_coming_steps() -> None:
    clock = iter((10.0, 10.0, 14.0)).__next__
    steps = progress_view.ProgressList(clock)
    for step in (step_of("ray"), step_of("ray", 1)):
        steps.report(step)
    steps.report(step_of("workers", 1, 2))
    out = console()
    out.print(steps)
    lines = written(out).splitlines()
    assert lines[0].split() == ["✓", "Ray", "ready", "0", "ms"]
    assert lines[1].split() == ["·", "controller"]
    assert lines[2].split()[1:] == ["workers", "1", "of", "2"]


def test_a_done_step_keeps_its_duration() -> None:
    clock = iter((10.0, 13.5, 99.0)).__next__
    steps = progress_view.ProgressList(clock)
    for done in (0, 1, 1):
        steps.report(step_of("ray", done))
    out = console()
    out.print(steps)
    assert "3.5 s" in written(out)


def test_a_terminal_gets_the_live_list() -> None:
    out = console(force_terminal=True)
    with progress_view.shown(out, is_plain=False) as report:
        report(step_of("gateway", 1, 1, "127.0.0.1:8080"))
    assert "ready, 127.0.0.1:8080" in written(out)
    assert "\x1b[" in written(out)

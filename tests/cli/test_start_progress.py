import io
from typing import NamedTuple

import pytest
from rich.console import Console

from meshserve.cli import start_progress


class Step(NamedTuple):
    step: str
    done: int = 0
    total: int = 1
    detail: str = ""


def console(**more):
    return Console(file=io.StringIO(), width=80, **more)


def written(console_):
    return console_.file.getvalue()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step("ray"), "starting"),
        (Step("ray", 1, 1, "started here"), "ready, started here"),
        (Step("workers", 1, 2), "1 of 2"),
        (Step("models", 1200, 5000), "1,200 of 5,000"),
        (Step("models", 0, 0), "none"),
    ],
)
def test_words(step, words):
    assert start_progress.said(step) == words


def test_elsewhere_there_is_a_line_for_each_thing_that_is_new():
    out = console()
    with start_progress.shown(out, is_plain=False) as report:
        for step in (
            Step("ray"),
            Step("ray"),
            Step("ray", 1),
            Step("workers", 1, 2),
            Step("models", 2, 2),
        ):
            report(step)
    assert written(out).splitlines() == [
        "Ray: starting",
        "Ray: ready",
        "workers: 1 of 2",
        "models registered: 2 of 2",
    ]


def test_thousands_of_models_are_not_thousands_of_lines():
    out = console()
    with start_progress.shown(out, is_plain=True) as report:
        for done in range(5001):
            report(Step("models", done, 5000))
    lines = written(out).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (
        11,
        "models registered: 0 of 5,000",
        "models registered: 5,000 of 5,000",
    )


def test_steps_show_what_is_done_what_runs_and_what_is_to_come():
    clock = iter((10.0, 10.0, 14.0)).__next__
    steps = start_progress.Steps(clock)
    for step in (Step("ray"), Step("ray", 1)):
        steps.report(step)
    steps.report(Step("workers", 1, 2))
    out = console()
    out.print(steps)
    lines = written(out).splitlines()
    assert lines[0].split() == ["✓", "Ray", "ready", "0", "ms"]
    assert lines[1].split() == ["·", "controller"]
    assert lines[2].split()[1:] == ["workers", "1", "of", "2"]


def test_a_step_keeps_the_time_that_it_took():
    clock = iter((10.0, 13.5, 99.0)).__next__
    steps = start_progress.Steps(clock)
    for done in (0, 1, 1):
        steps.report(Step("ray", done))
    out = console()
    out.print(steps)
    assert "3.5 s" in written(out)


def test_a_terminal_gets_the_live_list():
    out = console(force_terminal=True)
    with start_progress.shown(out, is_plain=False) as report:
        report(Step("gateway", 1, 1, "127.0.0.1:8080"))
    assert "ready, 127.0.0.1:8080" in written(out)
    assert "\x1b[" in written(out)

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from meshserve.cli import event_commands
from meshserve.client import admin
from tests.cli import conftest, fake_mesh

AT_S = time.mktime((2026, 11, 28, 10, 0, 0, 0, 0, -1))


def event(number: int, **changes: Any) -> Any:
    return {
        "number": number,
        "at_s": AT_S + number,
        "kind": "loaded",
        "reason": "2 waited for it",
        "model": "iris",
        "version": "1",
        "process": "default-0",
        "node": "n1",
        "by": "",
        "took_s": 0.25,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "loaded      iris:1 on default-0 in 250 ms: 2 waited for it"),
        (
            {"kind": "lost", "model": "", "version": "", "took_s": 0.0, "reason": "killed\nby it"},
            "lost        default-0 (n1): killed by it",
        ),
        (
            {
                "kind": "changed",
                "process": "",
                "took_s": 0.0,
                "by": "ops",
                "reason": "model iris:1 added",
            },
            "changed     model iris:1 added (by ops)",
        ),
        (
            {"kind": "draining", "model": "", "version": "", "process": "", "took_s": 0.0},
            "draining    2 waited for it",
        ),
        (
            {"model": "qwen", "version": "", "process": "qwen/0", "reason": ""},
            "loaded      qwen on qwen/0 in 250 ms",
        ),
    ],
)
def test_an_event_is_a_line(changes: dict[str, Any], line: str) -> None:
    assert event_commands.line(event(0, **changes)) == f"2026-11-28 10:00:00.000 {line}"


def test_known_events_are_printed(run: conftest.Run, fake: fake_mesh.FakeMesh) -> None:
    fake.events = [event(1), event(2, kind="evicted")]
    done = run("events", "iris", "-n", "7")
    assert done.exit_code == 0
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["loaded", "evicted"]
    assert done.stderr == ""
    assert fake.requests[-1][1] == "/mesh/v1/events?about=iris&limit=7"


def test_each_event_may_be_an_object(run: conftest.Run, fake: fake_mesh.FakeMesh) -> None:
    fake.events = [event(1), event(2)]
    done = run("events", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == fake.events


def test_since_when_they_are_known_is_said(run: conftest.Run, fake: fake_mesh.FakeMesh) -> None:
    fake.events, fake.missed = [event(1)], 4
    done = run("events", "--since", "2026-11-27")
    assert "the controller knows what happened since 2026-11-28 10:00:00" in done.stderr
    assert "4 events were too many to be kept" in done.stderr


def test_new_events_follow_and_a_new_controller_s_are_not_told_twice(
    fake: fake_mesh.FakeMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.events = [event(1)]
    reader = event_commands.EventReader(admin.AdminClient(fake.endpoint), "", as_json=False)
    reader.print_known(None, 10)
    fake.events.append(event(2))
    reader.print_new()
    fake.log, fake.events = "another", [event(1), event(2), event(3)]
    reader.print_new()
    fake.events.append(event(4))
    reader.print_new()
    shown = capsys.readouterr().out.splitlines()
    assert [line[11:19] for line in shown] == ["10:00:01", "10:00:02", "10:00:03", "10:00:04"]

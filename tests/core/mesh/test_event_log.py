from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.mesh import event_log
from meshserve.core.values import mesh_events


def event(at_s: float, kind: Any = "loaded", **fields: Any) -> mesh_events.MeshEvent:
    return mesh_events.MeshEvent(at_s, kind, **fields)


def times(log: event_log.EventLog, **choice: Any) -> list[float]:
    return [numbered.event.at_s for numbered in log.read(event_log.EventChoice(**choice))]


def test_many_loads_push_out_no_death() -> None:
    log = event_log.EventLog()
    log.add(event(0.0, "lost"))
    for number in range(1, event_log.COPY_EVENTS_MAX + 100):
        log.add(event(float(number)))
    assert times(log, kind="lost") == [0.0]
    assert len(times(log, limit=10_000)) == event_log.COPY_EVENTS_MAX + 1


def test_without_a_cursor_the_newest_are_read_and_with_one_the_next() -> None:
    log = event_log.EventLog()
    for number in range(10):
        log.add(event(float(number), "loaded" if number % 2 else "lost"))
    assert times(log, limit=2) == [8.0, 9.0]
    assert times(log, limit=2, after=3) == [3.0, 4.0]
    assert times(log, after=log.last_number) == []
    assert times(log, since_s=7.0) == [7.0, 8.0, 9.0]


@pytest.mark.parametrize(
    ("about", "at_s"),
    [
        ("iris", [1.0, 3.0]),
        ("iris:2", [3.0]),
        ("default-0", [1.0]),
        ("default", [1.0]),
        ("rare", [4.0]),
        ("qwen/0", [2.0]),
        ("qwen", [2.0]),
        ("n1", [1.0]),
        ("", [1.0, 2.0, 3.0, 4.0]),
        ("iri", []),
    ],
)
def test_events_are_chosen_by_what_they_are_about(about: str, at_s: list[float]) -> None:
    log = event_log.EventLog()
    log.add(event(1.0, model="iris", version="1", process="default-0", node="n1"))
    log.add(event(2.0, "ready", process="qwen/0"))
    log.add(event(3.0, "changed", model="iris", version="2"))
    log.add(event(4.0, "scaled", pool="rare"))
    assert times(log, about=about) == at_s

from __future__ import annotations

import time
from typing import Any

import pytest

from meshserve.cli import model_lines

AT_S = time.mktime((2026, 11, 28, 10, 0, 0, 0, 0, -1))


def lines(**answer: Any) -> dict[str, str]:
    pairs = [*model_lines.tensors(answer), *model_lines.reasons(answer)]
    return {title: str(text) for title, text in pairs if str(text)}


def test_an_older_mesh_tells_nothing() -> None:
    assert lines() == {}


def test_tensors_have_their_sizes() -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    y = {"name": "y", "datatype": "", "shape": []}
    assert lines(inputs=[x, {**x, "name": "z"}], outputs=[y]) == {
        "inputs": "x FP32 [any, 4]\nz FP32 [any, 4]",
        "outputs": "y any type []",
    }


def test_all_reasons_have_their_line() -> None:
    assert lines(
        last_load={"at_s": AT_S, "took_s": 0.25},
        last_departure={"at_s": AT_S, "kind": "evicted", "reason": "to make room for b:1"},
        load_failure={"error": "no\nkey", "in_a_row": 3, "next_try_in_s": 4.0},
        last_error={"at_s": AT_S, "error": "ValueError: x"},
        failed_requests={"ModelRaised": 1200, "InvalidRequest": 1},
        slow=["queue: 3 requests wait", "CPU: slow"],
    ) == {
        "last load": "2026-11-28 10:00:00, took 250 ms",
        "last eviction": "2026-11-28 10:00:00, to make room for b:1",
        "load failed": "3 times in a row, tried again in 4 s: no key",
        "last error": "2026-11-28 10:00:00, ValueError: x",
        "failed requests": "1 InvalidRequest, 1,200 ModelRaised",
        "slow": "queue: 3 requests wait\nCPU: slow",
    }


def test_a_due_try_comes_with_the_next_request() -> None:
    failure = {"error": "x", "in_a_row": 1, "next_try_in_s": 0.0}
    assert lines(load_failure=failure) == {
        "load failed": "1 time in a row, tried again with the next request: x"
    }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"pinned": False, "pinned_by": ""}, "no"),
        ({"pinned": True}, "yes"),
        ({"pinned": True, "pinned_by": "the management API"}, "yes, by the management API"),
    ],
)
def test_what_pins_a_model_is_told(answer: Any, words: str) -> None:
    assert model_lines.pinned(answer) == words


def test_joining_is_told_in_words() -> None:
    assert model_lines.joining({"state": "never", "reason": "LSTM"}) == "no: LSTM"
    assert model_lines.joining(None) == ""


@pytest.mark.parametrize(
    ("state", "loaded_s", "is_told"),
    [("ready", AT_S - 60, True), ("ready", AT_S + 1, False), ("absent", AT_S - 60, False)],
)
def test_a_load_that_had_nothing_to_do_says_since_when(
    state: str, loaded_s: float, is_told: bool
) -> None:
    answer = {"state": state, "last_load": {"at_s": loaded_s, "took_s": 1.0}}
    words = "nothing to do: its files are unchanged since its load at 2026-11-28 09:59:00"
    assert model_lines.unchanged(answer, AT_S) == (words if is_told else "")

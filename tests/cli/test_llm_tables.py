from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from meshserve.cli import llm_tables
from tests.cli import fake_mesh


def drawn(*llms: Any, width: int = 160) -> Any:
    text = io.StringIO()
    paper = Console(file=text, width=width, markup=False, highlight=False)
    paper.print(llm_tables.llms(list(llms), width))
    return text.getvalue().splitlines()


def line_of(lines: Any, name: Any) -> Any:
    return next(line for line in lines if line.startswith(name)).split()


def test_replicas_are_summed_up() -> None:
    both = [fake_mesh.replica("tiny/0"), fake_mesh.replica("tiny/1", ttft_p95_s=1.5, kv_used=0.5)]
    line = line_of(drawn(fake_mesh.llm("tiny", *both, held=4)), "tiny")
    assert line[:8] == ["tiny", "ready", "cuda", "2", "4", "6", "2", "241"]
    assert " ".join(line[8:14]) == "42 ms 1.5 s 50 %"


def test_an_llm_without_replicas_has_a_line_of_zeros() -> None:
    assert line_of(drawn(fake_mesh.llm("off", state="idle", start_s=None)), "off")[:9] == [
        "off",
        "idle",
        "cuda",
        "0",
        "0",
        "0",
        "0",
        "0",
        "–",
    ]


def test_a_starting_replica_is_counted_and_has_its_reason() -> None:
    waiting = fake_mesh.replica(
        "big/0", state="starting", reason="it needs 4 GPUs\nand 0 are free on n1"
    )
    lines = drawn(fake_mesh.llm("big", waiting, state="starting"))
    assert line_of(lines, "big ")[3:6] == ["0", "of", "1"]
    assert lines[-1] == "big/0 it needs 4 GPUs and 0 are free on n1"


def test_an_llm_without_replicas_has_its_own_reason() -> None:
    assert (
        drawn(fake_mesh.llm("off", state="idle", reason="its weights are cut off"))[-1]
        == "off its weights are cut off"
    )


@pytest.mark.parametrize("width", [80, 110, 160])
def test_the_table_fits_its_width(width: int) -> None:
    assert (
        max(
            map(
                len,
                drawn(fake_mesh.llm("a-rather-long-name", fake_mesh.replica("x/0")), width=width),
            )
        )
        <= width
    )

from __future__ import annotations

import argparse
from typing import Any

import pytest

from bench import open_loop, program, traffic

ARGS = argparse.Namespace(models=2, rate=10.0, seconds=1.0, workers=1, memory="1GiB", quick=False)


def asked(took_ms: Any, fault: str = "") -> Any:
    return [traffic.Asked(number, took_ms, fault) for number in range(2)]


@pytest.mark.parametrize(("took_ms", "is_reached"), [(9.0, True), (11.0, False)])
def test_only_the_loop_counts_and_not_the_warm_up(took_ms: Any, is_reached: Any) -> None:
    measured = open_loop.summarise(ARGS, asked(500.0), asked(took_ms), 1.0)
    assert [claim.is_reached for claim in measured.claims] == [is_reached]


@pytest.mark.parametrize(("took_ms", "is_reached"), [(30.0, True), (31.0, False)])
def test_the_quick_version_holds_a_request_beside_first_ones(took_ms: Any, is_reached: Any) -> None:
    (claim,) = open_loop.summarise(
        argparse.Namespace(**vars(ARGS) | {"quick": True}), asked(100.0), asked(took_ms), 1.0
    ).claims
    assert (claim.is_reached, claim.theirs) == (is_reached, 100.0)


def test_one_failure_is_no_result() -> None:
    with pytest.raises(program.WrongAnswer, match="2 requests failed"):
        open_loop.summarise(ARGS, asked(1.0, "UNAVAILABLE: x"), asked(1.0), 1.0)

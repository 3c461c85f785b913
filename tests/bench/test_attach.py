from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import attach, program, torch_models

PLAN = attach.Plan(2 << 20, (torch_models.WIDE,), 2, 0)


@pytest.fixture
def sample(tmp_path: Path) -> Any:
    return attach.write(tmp_path, torch_models.WIDE, PLAN.size_bytes, 0)


def test_a_model_that_left_is_attached_and_answers_bit_for_bit(tmp_path: Path, sample: Any) -> None:
    (tmp_path / "worker").mkdir()
    figures = asyncio.run(attach.measure(tmp_path / "worker", sample, 2))
    assert len(figures.attach_ms) == len(figures.first_answer_ms) == len(figures.warm_ms) == 2
    assert figures.mapped_bytes == pytest.approx(PLAN.size_bytes, rel=0.1)
    measured = attach.summarise(
        PLAN,
        {"wide": figures},
        {"none": 0, "plain": 4 << 20, "mapped": 1 << 20},
        {"evicted": [3.0], "resident": [2.0]},
    )
    assert [claim.is_reached for claim in measured.claims][-1]
    assert measured.tables[1].rows == (("evicted", "3", "3"), ("resident", "2", "2"))


@pytest.mark.parametrize(
    ("is_quick", "attach_ms", "is_reached"),
    [(True, 5.0, True), (True, 6.0, False), (False, 50.0, True), (False, 51.0, False)],
)
def test_the_quick_version_holds_attaching_beside_torch_s_load(
    is_quick: Any, attach_ms: Any, is_reached: Any
) -> None:
    figures = attach.Figures(10.0, 20.0, (attach_ms,) * 3, (1.0,) * 3, (1.0,) * 3, 0, 0)
    assert attach.claim("wide", figures, is_quick=is_quick).is_reached is is_reached


def test_one_bit_less_is_a_wrong_answer(sample: Any) -> None:
    attach.check(sample, sample.answer.copy())
    with pytest.raises(program.WrongAnswer, match="something else than torch"):
        attach.check(sample, np.nextafter(sample.answer, np.float32(np.inf)))


@pytest.mark.edge
def test_what_several_processes_share_counts_once(
    tmp_path: Path, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "HOLDERS", 2)
    assert attach.held_bytes(tmp_path, sample, "mapped") > 50 << 20

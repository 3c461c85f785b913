from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import samples

CLASSES = np.array([0, 1, 1])


@pytest.mark.parametrize(
    "answers",
    [
        np.array([0, 1, 1], np.int64),
        np.array([[0], [1], [1]], np.int32),
        np.array([0.2, 0.7, 0.9], np.float32),
        np.array([[0.9, 0.1, 0], [0.3, 0.5, 0.2], [0.1, 0.8, 0.1]]),
    ],
)
def test_labels_and_probabilities_are_scored_alike(answers: Any) -> None:
    assert samples.score(answers, CLASSES) == 1.0
    assert samples.score(answers[[1, 1, 1]], CLASSES) == pytest.approx(2 / 3)


def test_numbers_are_scored_by_their_share_of_variance() -> None:
    truth = np.array([1.0, 2.0, 3.0])
    assert samples.score(truth[:, None], truth) == 1.0
    assert samples.score(np.full(3, 2.0), truth) == 0.0


def test_held_out_rows_are_apart_from_the_others() -> None:
    rows = samples.iris()
    assert (len(rows.x), len(rows.held_x), rows.held_x.dtype.name) == (112, 38, "float32")


def test_a_users_class_answers_from_its_files(tmp_path: Path) -> None:
    rows, path = samples.diabetes(), tmp_path / "model.py"
    samples.train_diabetes(rows, path)
    answers = samples.ask_diabetes(path, rows.held_x)
    assert 0.4 < samples.score(answers, rows.held_y) < 0.6

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bench import joining


def test_figures_are_medians() -> None:
    rounds = [joining.Round(100, 5), joining.Round(300, 4), joining.Round(200, 9)]
    assert joining.summarise({"joined": rounds}) == {"joined": joining.Round(200, 5)}


def test_a_line_tells_what_joining_is_worth_and_what_the_watch_takes() -> None:
    medians = {
        "joined": joining.Round(2000, 101),
        "alone": joining.Round(1000, 150),
        "unwatched": joining.Round(2010, 100),
    }
    line = joining.line("m", "joined", medians)
    assert "2,000 joined,    1,000 alone (2.00x)" in line
    assert line.endswith("the watch takes +1.0 %")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_models_take_their_rows(tmp_path: Path) -> None:
    drawn = list(joining.cases(tmp_path))
    assert [case.path.suffix for case in drawn] == [".onnx", ".onnx", ".pt"]
    session = onnxruntime.InferenceSession(str(drawn[0].path))
    assert np.asarray(session.run(None, {"x": drawn[0].row})[0]).shape == (1, 4)

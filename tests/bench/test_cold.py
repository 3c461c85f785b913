from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bench import cold, pages, program
from meshserve.protocol.pb import inference_pb2 as pb


def test_models_of_all_kinds_differ_and_have_their_size(tmp_path: Path) -> None:
    local = cold.write_samples(tmp_path, "local", {"5.6 KB": 2, "10 MB": 1})
    distant = cold.write_samples(tmp_path, "s3", {"5.6 KB": 2})
    contents = {sample.path.read_bytes() for sample in (*local, *distant)}
    assert len(contents) == 5
    assert local[-1].path.stat().st_size == pytest.approx(10 << 20, rel=0.01)


def test_the_right_answer_is_what_onnx_runtime_says(tmp_path: Path) -> None:
    (sample,) = cold.write_samples(tmp_path, "local", {"10 MB": 1})
    (y,) = onnxruntime.InferenceSession(sample.path).run(None, {"x": cold.X})
    answer = pb.ModelInferResponse(raw_output_contents=[y.tobytes()])
    cold.check_answer(answer, cold.expected_answer(sample), sample.name)
    with pytest.raises(program.WrongAnswer):
        cold.check_answer(answer, cold.expected_answer(sample) + 1, sample.name)
    assert cold.in_process_ms(sample, 2) > 0


def test_pages_that_the_kernel_keeps_are_not_measured_as_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sample,) = cold.write_samples(tmp_path, "local", {"10 MB": 1})
    monkeypatch.setattr(pages, "cached_share", lambda _path: 1.0)
    with pytest.raises(program.WrongAnswer, match="keeps the pages"):
        cold.checked_drop(tmp_path, sample)


def test_the_artifact_and_its_copy_are_dropped_and_no_other(tmp_path: Path) -> None:
    one, other = cold.write_samples(tmp_path, "local", {"10 MB": 2})
    copy = tmp_path / "cache" / "aa" / one.path.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(one.path.read_bytes())
    other.path.read_bytes()
    cold.checked_drop(tmp_path / "cache", one)
    assert [pages.cached_share(path) > 0.5 for path in (one.path, copy, other.path)] == [
        False,
        False,
        True,
    ]


def test_the_request_names_its_model() -> None:
    request = cold.request("a")
    assert request.model_name == "a"
    np.testing.assert_array_equal(
        np.frombuffer(request.raw_input_contents[0], np.float32), cold.X[0]
    )


@pytest.mark.parametrize("plan", [cold.WHOLE, cold.QUICK])
def test_every_size_that_is_evicted_has_a_model(plan: Any) -> None:
    assert plan.evicted.keys() == plan.first.keys() <= cold.SIZES.keys()

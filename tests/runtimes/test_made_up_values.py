from __future__ import annotations

import numpy as np
import pytest

from meshserve.runtimes import made_up_values


@pytest.mark.parametrize("datatype", ["BYTES", "BF16", "BOOL", "INT8", "UINT64", "FP16", "FP64"])
def test_values_differ_within_and_between_inputs(datatype: str) -> None:
    first, second = (made_up_values.make(datatype, (3, 4), place) for place in (0, 1))
    assert first.shape == (3, 4)
    assert len({*first.ravel().tolist()}) > 1
    assert (first != second).any()


def test_each_style_has_its_numbers() -> None:
    feeds: dict[str, np.ndarray] = {
        "x": np.full((2, 3), 0.5, np.float32),
        "i": np.ones((2,), np.int64),
    }
    plain, zeros, growing, single = (style(dict(feeds)) for style in made_up_values.STYLES)
    assert all(plain[name] is feeds[name] for name in feeds)
    assert zeros["i"].tolist() == [0, 0]
    assert zeros["x"] is feeds["x"]
    assert growing["x"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert growing["i"].tolist() == [1, 2]
    assert single["x"].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert {array.dtype for array in single.values()} == {np.dtype("f4"), np.dtype("i8")}

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from meshserve.runtimes import ubjson

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def text(value: Any) -> Any:
    content = value.encode()
    return b"L" + struct.pack(">q", len(content)) + content


def encoded(value: Any) -> Any:
    """A value in UBJSON, as XGBoost writes it."""
    if isinstance(value, dict):
        return b"{" + b"".join(text(name) + encoded(item) for name, item in value.items()) + b"}"
    if isinstance(value, list):
        return b"[#L" + struct.pack(">q", len(value)) + b"".join(map(encoded, value))
    if isinstance(value, str):
        return b"S" + text(value)
    if isinstance(value, float):
        return b"D" + struct.pack(">d", value)
    return (
        {None: b"Z", True: b"T", False: b"F"}[value]
        if value is None or isinstance(value, bool)
        else b"L" + struct.pack(">q", value)
    )


@given(VALUES)
def test_written_values_are_read(value: Any) -> None:
    assert ubjson.loads(encoded(value)) == value


@given(VALUES.filter(lambda value: len(encoded(value)) > 1), st.data())
def test_values_cut_short_or_followed_by_more_are_refused(value: Any, data: Any) -> None:
    content = encoded(value)
    cut = data.draw(st.integers(0, len(content) - 1))
    for broken in (content[:cut], content + b"Z"):
        with pytest.raises(ubjson.Malformed):
            ubjson.loads(broken)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_malformed(content: bytes) -> None:
    try:
        ubjson.loads(content)
    except ubjson.Malformed:
        return


@pytest.mark.parametrize(
    ("code", "dtype"),
    [
        ("d", ">f4"),
        ("D", ">f8"),
        ("i", ">i1"),
        ("U", ">u1"),
        ("I", ">i2"),
        ("l", ">i4"),
        ("L", ">i8"),
    ],
)
def test_typed_arrays_are_arrays(code: Any, dtype: Any) -> None:
    numbers = np.array([1, 2, 100], dtype)
    content = b"[$" + code.encode() + b"#U\x03" + numbers.tobytes()
    assert ubjson.loads(content).tolist() == [1, 2, 100]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "ends too early"),
        (b"[$d#L" + struct.pack(">q", 2**62), "impossible length"),
        (b"[$d#L" + struct.pack(">q", -1), "impossible length"),
        (b"[$dL", "without its length"),
        (b"?", "unknown marker"),
        (b"[" * 100, "nested too deeply"),
        (b"SU\x01\xff", "utf-8"),
        (b"ZZ", "left over"),
    ],
)
def test_a_malformed_value_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(ubjson.Malformed, match=reason):
        ubjson.loads(content)


def test_a_real_booster_is_the_same_in_both_formats() -> None:
    data = xgboost.DMatrix(np.arange(40.0).reshape(20, 2), np.arange(20.0))
    booster = xgboost.train({"max_depth": 2, "nthread": 1}, data, 2)
    binary, plain = (
        ubjson.loads(bytes(booster.save_raw("ubj"))),
        orjson.loads(booster.save_raw("json")),
    )
    assert as_lists(binary) == plain


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_lists(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_lists(item) for item in value]
    return (
        [pytest.approx(item, rel=1e-6) for item in value.tolist()]
        if isinstance(value, np.ndarray)
        else value
    )

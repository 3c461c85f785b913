from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import signatures


def specs(*triples: Any) -> Any:
    return tuple(model.TensorSpec(*triple) for triple in triples)


FOUND = specs(("a", "FP32", (-1, 4)), ("b", "INT64", (-1,)))


def test_nothing_declared_is_all_as_found() -> None:
    assert signatures.agree((), FOUND, "input") == {FOUND[0]: "a", FOUND[1]: "b"}


def test_declared_names_are_the_artifact_s_or_go_by_place() -> None:
    assert list(signatures.agree(FOUND[::-1], FOUND, "input").values()) == ["b", "a"]
    renamed = specs(("first", "FP32", (-1, 4)), ("second", "INT64", (-1,)))
    assert list(signatures.agree(renamed, FOUND, "input").values()) == ["a", "b"]


@pytest.mark.parametrize(
    "declared",
    [specs(("a", "FP32", (-1, 4)), ("c", "INT64", (-1,))), specs(("c", "FP32", (-1, 4)))],
    ids=len,
)
def test_names_that_fit_neither_way_are_refused(declared: Any) -> None:
    with pytest.raises(errors.LoadFailed, match="input 'c' does not exist in the model"):
        signatures.agree(declared, FOUND, "input")


@pytest.mark.parametrize(
    ("what", "said", "is_true"),
    [
        ("input", (-1, 4), True),
        ("input", (7, 4), True),
        ("input", (-1, -1), False),
        ("output", (-1, -1), True),
        ("output", (7, 4), False),
        ("output", (-1, 4, 1), False),
        ("input", (-1, 5), False),
        ("input", (4,), False),
    ],
)
def test_an_input_may_be_declared_narrower_and_an_output_wider(
    what: Any, said: Any, is_true: Any
) -> None:
    declared = model.TensorSpec("a", "FP32", said)
    if is_true:
        signatures.check_true(declared, FOUND[0], what)
    else:
        with pytest.raises(
            errors.LoadFailed,
            match=rf"{what} 'a' is declared with shape .*but the model has \[-1, 4\]",
        ):
            signatures.check_true(declared, FOUND[0], what)


def test_another_datatype_is_refused() -> None:
    with pytest.raises(errors.LoadFailed, match="'a' is declared FP64, but the model has FP32"):
        signatures.check_true(model.TensorSpec("a", "FP64", (-1, 4)), FOUND[0], "input")


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (specs(("a", "FLOAT32", (1,))), "'FLOAT32', which does not exist"),
        (specs(("a", "FP23", (1,))), "did you mean 'FP32'"),
        (specs(("a", "FP32", (-2,))), "a dimension is a size, or -1 for any"),
        (specs(("a", "FP32", (1,)), ("a", "FP32", (1,))), "two inputs have the same name"),
    ],
)
def test_impossible_declarations_are_refused(declared: Any, reason: str) -> None:
    with pytest.raises(errors.LoadFailed, match=reason):
        signatures.check_specs(declared, "input")


def test_unknown_and_missing_names_are_refused() -> None:
    with pytest.raises(errors.LoadFailed, match="'ab' does not exist in the model; did you mean"):
        signatures.check_names(specs(("ab", "FP32", ())), specs(("abc", "FP32", ())), "output")
    with pytest.raises(errors.LoadFailed, match="the model needs the input 'b'"):
        signatures.check_complete(FOUND[:1], ["a", "b"], "input")


def test_batches_are_free_in_the_first_dimension() -> None:
    assert signatures.have_rows(FOUND)
    assert not signatures.have_rows((*FOUND, model.TensorSpec("c", "FP32", ())))
    assert not signatures.have_rows((*FOUND, model.TensorSpec("c", "FP32", (1, -1))))


@pytest.mark.parametrize(
    ("batching", "is_batchable", "is_known", "expected"),
    [
        (None, True, False, (True, False)),
        (None, True, True, (True, True)),
        (None, False, True, (False, False)),
        (False, True, True, (True, False)),
        (True, True, False, (True, True)),
        (True, False, False, (True, True)),
    ],
)
def test_requests_are_joined_only_if_the_kind_or_the_owner_says_so(
    batching: bool | None, is_batchable: bool, is_known: bool, expected: tuple[bool, bool]
) -> None:
    spec = model.ModelSpec(model.ModelId("m"), "", batching=batching)
    free = (model.TensorSpec("x", "FP32", (-1, 4)),)
    fixed = (model.TensorSpec("x", "FP32", (2, 4)),)
    judge = functools.partial(signatures.rows_joined, is_batchable=is_batchable, is_known=is_known)
    assert judge(spec, free) == expected
    assert judge(spec, fixed) == (False, False)


SAMPLED = (
    model.TensorSpec("x", "FP32", (-1, 2)),
    model.TensorSpec("word", "BYTES", (-1,)),
    model.TensorSpec("half", "BF16", (-1,)),
)


def test_a_sample_has_the_inputs_datatypes() -> None:
    text = '{"x": [[1, null], [2.5, 3]], "word": ["a", "\u00e9"], "half": [1.0, -2.0]}'
    spec = model.ModelSpec(model.ModelId("m"), "", sample=text)
    sample = signatures.read_sample(spec, SAMPLED)
    assert sample is not None
    assert sample["x"].dtype == np.float32
    assert np.isnan(sample["x"][0, 1])
    assert sample["word"].tolist() == [b"a", "\u00e9".encode()]
    assert sample["half"].tolist() == [0x3F80, 0xC000]
    assert signatures.read_sample(model.ModelSpec(model.ModelId("m"), ""), SAMPLED) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"x": [[1, 2]]}', "the sample has x; the model takes x, word, half"),
        ('{"x": [[1, 2], [3]], "word": [], "half": []}', "sample's 'x' is no FP32 tensor"),
        ('{"x": [1, 2], "word": [], "half": []}', r"has shape \[2\], the model takes \[-1, 2\]"),
        ('{"x": [["a", 2]], "word": [], "half": []}', "sample's 'x' is no FP32 tensor"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(text: str, reason: str) -> None:
    spec = model.ModelSpec(model.ModelId("m"), "", sample=text)
    with pytest.raises(errors.LoadFailed, match=reason):
        signatures.read_sample(spec, SAMPLED)


def test_an_answer_shows_names_datatypes_and_ranks() -> None:
    learned = signatures.learn({"y": np.ones((2, 3), np.float32)})
    assert learned == (model.TensorSpec("y", "FP32", (-1, -1)),)
    signatures.check_requested(["y"], ["y"])
    with pytest.raises(errors.InvalidRequest, match="no output 'z'; it has: y"):
        signatures.check_requested(["z"], ["y"])

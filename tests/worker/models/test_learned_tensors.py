from __future__ import annotations

from dataclasses import replace

import numpy as np

from meshserve.core.values import model
from meshserve.protocol import tensors
from meshserve.worker.models import learned_tensors

OPEN = model.Signature((), (), has_open_inputs=True, has_open_outputs=True)
FLOATS = {"x": tensors.WireTensor("FP32", np.zeros((2, 3), np.float32))}
WHOLE = {"y": np.array([1, 2])}


def test_a_request_and_its_answer_show_names_and_datatypes() -> None:
    learned = learned_tensors.learn(OPEN, FLOATS, WHOLE)
    assert learned.inputs == (model.TensorSpec("x", "FP32", (-1, -1)),)
    assert learned.outputs == (model.TensorSpec("y", "INT64", (-1,)),)
    assert learned_tensors.learn(learned, FLOATS, WHOLE) is learned


def test_names_that_are_known_get_their_datatypes() -> None:
    known = replace(OPEN, inputs=(model.TensorSpec("x", "", ()), model.TensorSpec("m", "", ())))
    assert learned_tensors.learn(known, FLOATS, WHOLE).inputs == (
        model.TensorSpec("x", "FP32", (-1, -1)),
        model.TensorSpec("m", "", ()),
    )


def test_the_newest_answer_replaces_what_it_contradicts() -> None:
    learned = learned_tensors.learn(OPEN, FLOATS, WHOLE)
    later = learned_tensors.learn(learned, FLOATS, {"y": np.zeros((1, 2)), "z": np.array([1]) == 1})
    assert later.outputs == (
        model.TensorSpec("y", "FP64", (-1, -1)),
        model.TensorSpec("z", "BOOL", (-1,)),
    )


def test_sizes_that_differ_are_free() -> None:
    probed = replace(OPEN, outputs=(model.TensorSpec("y", "INT64", (3,)),))
    assert learned_tensors.learn(probed, {}, WHOLE).outputs == (
        model.TensorSpec("y", "INT64", (-1,)),
    )


def test_what_is_declared_stays() -> None:
    declared = model.Signature((), (model.TensorSpec("y", "FP64", (-1,)),))
    assert learned_tensors.learn(declared, FLOATS, WHOLE) is declared


def test_names_without_end_are_not_kept() -> None:
    learned = OPEN
    for number in range(3 * learned_tensors.TENSORS_MAX):
        learned = learned_tensors.learn(learned, {}, {f"word {number}": np.zeros(1)})
    assert len(learned.outputs) == learned_tensors.TENSORS_MAX


def test_the_bits_of_bf16_are_known() -> None:
    probed = replace(OPEN, outputs=(model.TensorSpec("y", "BF16", (-1,)),))
    bits = {"y": np.zeros(2, np.uint16)}
    assert learned_tensors.learn(probed, {}, bits).outputs == probed.outputs


def test_outputs_that_a_runtime_does_not_know_are_open() -> None:
    assert learned_tensors.opened(model.Signature((), ())).has_open_outputs
    known = model.Signature((), (model.TensorSpec("y", "FP32", ()),))
    assert learned_tensors.opened(known) is known

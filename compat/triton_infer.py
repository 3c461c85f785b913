"""Triton's inference: datatypes, backends, shapes, as its L0 suites ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import triton_to_np_dtype

from compat import cases, triton_folders, world

PEER = "Triton"
DATATYPES = {"STRING": "BYTES"}
ROW_COUNTS = (1, 8)


def numbers(word: str, shape: tuple[int, ...], first: int = 1) -> np.ndarray:
    """Return whole numbers from `first` on, in this shape, of a type's word in configurations."""
    values = np.arange(first, first + int(np.prod(shape))).reshape(shape)
    if word == "STRING":
        return np.array([str(value).encode() for value in values.flat], object).reshape(shape)
    return values.astype(triton_to_np_dtype(word))


def _pair(word: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {"INPUT0": numbers(word, shape), "INPUT1": numbers(word, shape, 3)}


@cases.swept(
    PEER,
    "inference, ONNX",
    "qa/L0_infer",
    world.PROTOCOLS,
    ["_".join(types) for types in triton_folders.ADD_SUB_TYPES],
)
def add_sub_of_batches(asked: world.World, protocol: str, types: str) -> None:
    """Ask for one row and for a full batch."""
    for rows in ROW_COUNTS:
        inputs = _pair(types.split("_", maxsplit=1)[0], (rows, 16))
        right = asked.native(f"onnx_{types}", inputs)
        world.same(asked.ask(protocol, f"onnx_{types}", inputs), right)


@cases.swept(
    PEER,
    "inference, ONNX",
    "qa/L0_infer, models without a batch dimension",
    world.PROTOCOLS,
    ["_".join(types) for types in triton_folders.ADD_SUB_TYPES],
)
def add_sub_without_batches(asked: world.World, protocol: str, types: str) -> None:
    """Ask a model of max_batch_size 0, whose dims are the shape."""
    inputs = _pair(types.split("_", maxsplit=1)[0], (16,))
    right = asked.native(f"nobatch_{types}", inputs)
    world.same(asked.ask(protocol, f"nobatch_{types}", inputs), right)


@cases.swept(
    PEER, "inference, TorchScript", "qa/L0_infer", world.PROTOCOLS, triton_folders.TORCH_TYPES
)
def add_sub_of_torch(asked: world.World, protocol: str, word: str) -> None:
    """Ask a TorchScript model whose tensors are named by position."""
    a, b = numbers(word, (4, 16)), numbers(word, (4, 16), 3)
    answer = asked.ask(protocol, f"libtorch_{word}", {"INPUT__0": a, "INPUT__1": b})
    world.same(answer, {"OUTPUT__0": a + b, "OUTPUT__1": a - b})


@cases.both(PEER, "inference, ONNX", "qa/L0_infer: outputs are requested one by one")
def some_outputs(asked: world.World, protocol: str) -> None:
    """Only the requested output is answered, in the order in which outputs are requested."""
    inputs = _pair("INT32", (1, 16))
    wanted = world.wanted(protocol, "OUTPUT1")
    answer = asked.infer(protocol, "simple", inputs, outputs=wanted)
    world.equal(answer.as_numpy("OUTPUT1"), asked.native("simple", inputs)["OUTPUT1"])
    assert answer.as_numpy("OUTPUT0") is None


@cases.both(PEER, "inference, ONNX", "qa/L0_infer: batches of more than max_batch_size")
def too_many_rows(asked: world.World, protocol: str) -> None:
    """A batch that is bigger than the configuration's is refused in Triton's words."""
    said = _error(asked, protocol, "simple", _pair("INT32", (9, 16)))
    assert "batch-size must be <= 8" in said, said


@cases.both(PEER, "inference, ONNX", "qa/L0_input_validation")
def wrong_inputs(asked: world.World, protocol: str) -> None:
    """Missing, unknown and badly formed inputs are refused."""
    pair = _pair("INT32", (1, 16))
    for wrong in (
        {"INPUT0": pair["INPUT0"]},
        {**pair, "INPUT2": pair["INPUT0"]},
        {**pair, "INPUT1": pair["INPUT1"].astype(np.float32)},
        {**pair, "INPUT1": pair["INPUT1"][:, :8]},
        {**pair, "INPUT1": pair["INPUT1"][0]},
        {**pair, "INPUT1": np.repeat(pair["INPUT1"], 2, 0)},
    ):
        assert _error(asked, protocol, "simple", wrong)


def _error(asked: world.World, protocol: str, model: str, inputs: world.Arrays) -> str:
    """Return the message of the error that a request ends with, "" if it is answered."""
    library: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    try:
        asked.infer(protocol, model, inputs)
    except library.InferenceServerException as error:
        return str(error.message())
    return ""


@cases.both(PEER, "variable dims", "qa/L0_infer_variable")
def free_sizes(asked: world.World, protocol: str) -> None:
    """Dims of -1 take any size, and every row of a request the same."""
    for shape in ((1, 2, 3), (3, 16, 1), (8, 1, 40)):
        inputs = _pair("FP32", shape)
        world.same(asked.ask(protocol, "variable", inputs), asked.native("variable", inputs))


@cases.both(PEER, "variable dims", "qa/L0_infer_variable, models without a batch dimension")
def free_sizes_without_batches(asked: world.World, protocol: str) -> None:
    """The same where the first dimension is no batch."""
    for shape in ((2, 3), (16, 1), (1, 40)):
        inputs = _pair("FP32", shape)
        right = asked.native("variable_nobatch", inputs)
        world.same(asked.ask(protocol, "variable_nobatch", inputs), right)


@cases.swept(PEER, "zero sizes", "qa/L0_infer_zero", world.PROTOCOLS, triton_folders.IDENTITY_TYPES)
def tensors_without_elements(asked: world.World, protocol: str, word: str) -> None:
    """Two tensors of unequal lengths, 0 among them, with a batch and without."""
    for sizes in ((0, 3), (2, 0), (0, 0), (5, 2)):
        inputs = {f"INPUT{i}": numbers(word, (size,)) for i, size in enumerate(sizes)}
        _same_as_given(asked.ask(protocol, f"zero_nobatch_{word}", inputs), inputs)
        rows = {name: np.stack([array, array]) for name, array in inputs.items()}
        _same_as_given(asked.ask(protocol, f"zero_{word}", rows), rows)


def _same_as_given(answer: world.Arrays, inputs: world.Arrays) -> None:
    right = {name.replace("IN", "OUT"): array for name, array in inputs.items()}
    world.same(answer, right)


@cases.swept(
    PEER,
    "reshape",
    "qa/L0_infer_reshape",
    world.PROTOCOLS,
    triton_folders.RESHAPES,
    ("", "_nobatch"),
)
def reshaped_tensors(asked: world.World, protocol: str, name: str, suffix: str) -> None:
    """Clients see dims, the model sees the shape of `reshape`."""
    (dims, _), (answered, _) = triton_folders.RESHAPES[name]
    lead = () if suffix else (3,)
    free = 5
    shape = (*lead, *(free if size < 0 else size for size in dims))
    right = (*lead, *(free if size < 0 else size for size in answered))
    given = numbers("FP32", shape)
    answer = asked.ask(protocol, f"reshape_{name}{suffix}", {"INPUT0": given})
    world.same(answer, {"OUTPUT0": given.reshape(right)})


@cases.both(PEER, "scalars", "qa/L0_scalar_io")
def scalars(asked: world.World, protocol: str) -> None:
    """A model of scalars is configured with dims [1], or with several 1."""
    for model, given in (("scalar", [1.5]), ("scalar_of_two_dims", [[1.5]])):
        array = np.array(given, np.float32)
        world.same(asked.ask(protocol, model, {"INPUT0": array}), {"OUTPUT0": array * 2})


@cases.both(PEER, "strings", "qa/L0_string_io, qa/L0_nullchar_string")
def any_bytes(asked: world.World, protocol: str) -> None:
    """Texts may have any bytes: zeros, no UTF-8, none, very many."""
    texts = [b"", b"a\x00b", b"\x00", "Größe ✓".encode(), b"\xff\xfe", b"x" * 100_000]
    given = np.array([texts], object)
    answer = asked.ask(protocol, "simple_identity", {"INPUT0": given})
    world.same(answer, {"OUTPUT0": given})


@cases.both(PEER, "NaN and infinities", "qa/L0_nan_inf")
def special_numbers(asked: world.World, protocol: str) -> None:
    """NaN and infinities are numbers, and come back as they went."""
    given = np.array([np.nan, np.inf, -np.inf, 0, -0.0], np.float32)
    answer = asked.ask(protocol, "identity_fp32", {"INPUT0": given})
    world.same(answer, {"OUTPUT0": given})


@cases.case(PEER, "NaN and infinities", "qa/L0_nan_inf over JSON")
def special_numbers_in_json(asked: world.World) -> None:
    """Triton's client reads them from JSON too."""
    given = np.array([0, 1, -1, np.inf], np.float32)
    tensor = tritonclient.http.InferInput("INPUT0", [4], "FP32")
    tensor.set_data_from_numpy(given, binary_data=False)
    wanted = world.wanted("http", "OUTPUT0", binary_data=False)
    answer = asked.http.infer("logarithm", [tensor], outputs=wanted)
    with np.errstate(all="ignore"):
        world.equal(answer.as_numpy("OUTPUT0"), np.log(given))


@cases.both(PEER, "Python backend", "python_backend/examples/add_sub")
def python_models(asked: world.World, protocol: str) -> None:
    """A `TritonPythonModel` runs as it is; an optional input may be left out."""
    x = numbers("FP32", (3,))
    alone = asked.ask(protocol, "optional_bias", {"INPUT0": x})
    world.same(alone, {"OUTPUT0": x + np.float32(10)})
    biased = asked.ask(protocol, "optional_bias", {"INPUT0": x, "BIAS": x})
    world.same(biased, {"OUTPUT0": x + x})


@cases.both(PEER, "Python backend", "python_backend, TritonError")
def errors_of_python_models(asked: world.World, protocol: str) -> None:
    """The error of a model's own code reaches the client in its own words."""
    said = _error(asked, protocol, "raising", {"INPUT0": numbers("FP32", (3,))})
    assert "the input is not good enough" in said, said


@cases.both(PEER, "Python backend", "qa/L0_optional_input")
def optional_is_told(asked: world.World, protocol: str) -> None:
    """The configuration tells which inputs are optional."""
    config = asked.triton(protocol).get_model_config("optional_bias")
    if protocol == "grpc":
        assert [spec.optional for spec in config.config.input] == [False, True]
    else:
        assert [spec.get("optional", False) for spec in config["input"]] == [False, True]

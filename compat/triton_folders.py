"""A Triton model repository, with models like those of its suites and quickstarts."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from compat import onnx_models

Tensor = tuple[str, str, Sequence[int], str]
"""Name, type's word, dims, and more fields of a tensor in config.pbtxt."""

ADD_SUB_TYPES = (
    ("INT32", "INT32", "INT32"),
    ("INT32", "INT8", "INT8"),
    ("INT32", "INT16", "INT16"),
    ("INT32", "INT8", "INT16"),
    ("INT32", "FP32", "FP32"),
    ("INT64", "INT64", "INT64"),
    ("FP16", "FP16", "FP16"),
    ("FP32", "FP32", "FP32"),
    ("FP32", "INT32", "INT32"),
    ("FP64", "FP64", "FP64"),
    ("STRING", "STRING", "STRING"),
    ("STRING", "INT32", "INT32"),
    ("INT32", "STRING", "STRING"),
)
"""Types of INPUT0 and INPUT1, of OUTPUT0 and of OUTPUT1, as L0_infer combines them."""

TORCH_TYPES = ("INT32", "INT64", "FP32", "FP64")
IDENTITY_TYPES = tuple(onnx_models.TYPES)
LABELS = ("ash", "birch", "cedar", "elm")
FREE = "n"

# dims, reshape of the model's own side; for the input and for the output.
RESHAPES = {
    "wider": (([4, 4], [16]), ([16], None)),
    "both": (([2, 8], [4, 4]), ([8, 2], [4, 4])),
    "scalar": (([1], []), ([1], [])),
    "ones": (([4], [1, 4, 1]), ([1, 4], [1, 4, 1])),
    "free": (([2, 2, -1], [4, -1]), ([4, -1], [2, 2, -1])),
}


def write(top: Path) -> None:
    """Write the repository."""
    for types in ADD_SUB_TYPES:
        _add_sub("_".join(("onnx", *types)), top, types, 8)
        _add_sub("_".join(("nobatch", *types)), top, types, 0)
    _add_sub("simple", top, ("INT32", "INT32", "INT32"), 8)
    _add_sub("simple_int8", top, ("INT8", "INT8", "INT8"), 8)
    _add_sub("simple_string", top, ("STRING", "STRING", "STRING"), 8)
    _variable(top)
    for word in TORCH_TYPES:
        _torch_add_sub(top, word)
    for word in IDENTITY_TYPES:
        _identities(top, word)
    for name in RESHAPES:
        _reshaped(top, name)
    _images(top)
    _numbers(top)
    _python(top)
    _versioned(top)
    _refused(top)


def folder(
    top: Path,
    backend: str,
    rows_max: int,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    more: str = "",
) -> Path:
    """Write a model's config.pbtxt and return the path of the file of its version 1.

    `inputs` and `outputs` have their dims, which leave out the batch dimension.
    """
    tensors = [*(("input", tensor) for tensor in inputs), *(("output", t) for t in outputs)]
    lines = [f'name: "{top.name}"', f'backend: "{backend}"', f"max_batch_size: {rows_max}"]
    for kind, (name, word, dims, extra) in tensors:
        written = ", ".join(map(str, dims))
        fields = [f'name: "{name}"', f"data_type: TYPE_{word}", f"dims: [ {written} ]", extra]
        lines.append(f"{kind} [ {{ {' '.join(fields)} }} ]")
    (top / "1").mkdir(parents=True)
    (top / "config.pbtxt").write_text("\n".join((*lines, more, "")))
    names = {"onnxruntime": "model.onnx", "pytorch": "model.pt", "python": "model.py"}
    return top / "1" / names[backend]


def _add_sub(name: str, top: Path, types: tuple[str, str, str], rows_max: int) -> None:
    given, first, second = types
    inputs = [("INPUT0", given, [16], ""), ("INPUT1", given, [16], "")]
    outputs = [
        ("OUTPUT0", first, [16], 'label_filename: "labels.txt"'),
        ("OUTPUT1", second, [16], ""),
    ]
    path = folder(top / name, "onnxruntime", rows_max, inputs, outputs)
    (top / name / "labels.txt").write_text("".join(f"label{i}\n" for i in range(16)))
    onnx_models.add_sub(path, types, [FREE, 16] if rows_max else [16])


def _variable(top: Path) -> None:
    """Write add-subs whose dims are all free."""
    for name, rows_max, shape in (("variable", 8, [FREE, "a", "b"]), ("variable_nobatch", 0, "ab")):
        inputs = [("INPUT0", "FP32", [-1, -1], ""), ("INPUT1", "FP32", [-1, -1], "")]
        outputs = [("OUTPUT0", "FP32", [-1, -1], ""), ("OUTPUT1", "FP32", [-1, -1], "")]
        path = folder(top / name, "onnxruntime", rows_max, inputs, outputs)
        onnx_models.add_sub(path, ("FP32", "FP32", "FP32"), list(shape))


class AddSub(torch.nn.Module):
    """Sum and difference."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a + b and a - b, whatever their shape."""
        return a + b, a - b


def _torch_add_sub(top: Path, word: str) -> None:
    inputs = [("INPUT__0", word, [16], ""), ("INPUT__1", word, [16], "")]
    outputs = [
        ("OUTPUT__0", word, [16], 'label_filename: "labels.txt"'),
        ("OUTPUT__1", word, [16], ""),
    ]
    path = folder(top / f"libtorch_{word}", "pytorch", 8, inputs, outputs)
    (top / f"libtorch_{word}" / "labels.txt").write_text("".join(f"l{i}\n" for i in range(16)))
    with warnings.catch_warnings():
        # TorchScript is deprecated, and what Triton's PyTorch backend takes.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(AddSub()), path)


def _identities(top: Path, word: str) -> None:
    """Write identities: of two tensors of any length, as L0_infer_zero has them."""
    for name, rows_max, shapes in (
        (f"zero_{word}", 8, [[FREE, "a"], [FREE, "b"]]),
        (f"zero_nobatch_{word}", 0, [["a"], ["b"]]),
    ):
        inputs = [("INPUT0", word, [-1], ""), ("INPUT1", word, [-1], "")]
        outputs = [("OUTPUT0", word, [-1], ""), ("OUTPUT1", word, [-1], "")]
        path = folder(top / name, "onnxruntime", rows_max, inputs, outputs)
        onnx_models.identity(path, word, *shapes)


def _reshaped(top: Path, name: str) -> None:
    """Write models whose own shapes differ from those of clients, with a batch and without."""
    (given, own), (answered, own_answered) = RESHAPES[name]
    inside, outside = _or(own, given), _or(own_answered, answered)
    for rows_max, suffix in ((8, ""), (0, "_nobatch")):
        lead: list[object] = [FREE] if rows_max else []
        inputs = [("INPUT0", "FP32", given, _reshape(own))]
        outputs = [("OUTPUT0", "FP32", answered, _reshape(own_answered))]
        path = folder(top / f"reshape_{name}{suffix}", "onnxruntime", rows_max, inputs, outputs)
        sizes = [
            [*lead, *("m" if size < 0 else size for size in side)] for side in (inside, outside)
        ]
        onnx_models.reshaped(path, *sizes)


def _or(own: list[int] | None, shown: list[int]) -> list[int]:
    return shown if own is None else own


def _reshape(shape: list[int] | None) -> str:
    if shape is None:
        return ""
    return f"reshape {{ shape: [ {', '.join(map(str, shape))} ] }}"


def _images(top: Path) -> None:
    """Write classifiers of photos: batched ones of both formats, and one like densenet_onnx."""
    scores = ("scores", "FP32", [4], 'label_filename: "labels.txt"')
    for name, form, dims in (
        ("photos_nchw", "FORMAT_NCHW", [3, 8, 8]),
        ("photos_nhwc", "FORMAT_NHWC", [8, 8, 3]),
    ):
        data = ("data", "FP32", dims, f"format: {form}")
        path = folder(top / name, "onnxruntime", 8, [data], [scores])
        onnx_models.images(path, form == "FORMAT_NHWC", FREE)
        (top / name / "labels.txt").write_text("\n".join(LABELS))
    data = ("data", "FP32", [3, 8, 8], "format: FORMAT_NCHW reshape { shape: [ 1, 3, 8, 8 ] }")
    name, word, dims, labels = scores
    single = (name, word, dims, f"{labels} reshape {{ shape: [ 1, 4, 1, 1 ] }}")
    dense = folder(top / "densenet", "onnxruntime", 0, [data], [single])
    onnx_models.images(dense, channels_last=False, batch=1, tail=(1, 1))
    (top / "densenet" / "labels.txt").write_text("\n".join(LABELS))


def _numbers(top: Path) -> None:
    """Write a model of scalars, one that makes NaN and infinities, and a joined one."""
    for name, dims in (("scalar", [1]), ("scalar_of_two_dims", [1, 1])):
        inputs, outputs = [("INPUT0", "FP32", dims, "")], [("OUTPUT0", "FP32", dims, "")]
        onnx_models.scalar(folder(top / name, "onnxruntime", 0, inputs, outputs))
    free = [("OUTPUT0", "FP32", [-1], "")]
    path = folder(top / "logarithm", "onnxruntime", 0, [("INPUT0", "FP32", [-1], "")], free)
    onnx_models.logarithm(path)
    inputs, answers = [("x", "FP32", [4], "")], [("y", "FP32", [4], "")]
    joined = "dynamic_batching { preferred_batch_size: [ 4, 8 ] }"
    path = folder(top / "joined", "onnxruntime", 8, inputs, answers, joined)
    onnx_models.scaled(path, 3)


IDENTITY = """
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            responses = []
            for request in requests:
                given = pb_utils.get_input_tensor_by_name(request, "INPUT0")
                answer = pb_utils.Tensor("OUTPUT0", given.as_numpy())
                responses.append(pb_utils.InferenceResponse([answer]))
            return responses
"""

OPTIONAL = """
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def initialize(self, args):
            self.bias = np.float32(10)

        def execute(self, requests):
            responses = []
            for request in requests:
                x = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
                bias = pb_utils.get_input_tensor_by_name(request, "BIAS")
                total = x + (self.bias if bias is None else bias.as_numpy())
                answer = pb_utils.Tensor("OUTPUT0", total)
                responses.append(pb_utils.InferenceResponse(output_tensors=[answer]))
            return responses

        def finalize(self):
            self.bias = None
"""

RAISING = """
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            error = pb_utils.TritonError("the input is not good enough")
            return [pb_utils.InferenceResponse([], error=error) for _ in requests]
"""

SLOW = """
    import time

    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            time.sleep(1)
            given = pb_utils.get_input_tensor_by_name(requests[0], "INPUT0")
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", given.as_numpy())])]
"""


def _python(top: Path) -> None:
    """Write models of Triton's Python backend."""
    text = [("INPUT0", "STRING", [-1], "")], [("OUTPUT0", "STRING", [-1], "")]
    one = [("INPUT0", "STRING", [1], "")], [("OUTPUT0", "STRING", [1], "")]
    number = [("INPUT0", "FP32", [-1], "")], [("OUTPUT0", "FP32", [-1], "")]
    optional = [*number[0], ("BIAS", "FP32", [-1], "optional: true")], number[1]
    for name, rows_max, (inputs, outputs), source in (
        ("simple_identity", 8, text, IDENTITY),
        ("one_text", 8, one, IDENTITY),
        ("identity_fp32", 0, number, IDENTITY),
        ("optional_bias", 0, optional, OPTIONAL),
        ("raising", 0, number, RAISING),
        ("slow", 0, number, SLOW),
    ):
        path = folder(top / name, "python", rows_max, inputs, outputs)
        path.write_text(textwrap.dedent(source))


def _versioned(top: Path) -> None:
    """Write models of versions 1 to 3, whose answers are their version times the input."""
    policies = {
        "versions_latest": "",
        "versions_all": "version_policy { all {} }",
        "versions_two": "version_policy { latest { num_versions: 2 } }",
        "versions_some": "version_policy { specific { versions: [ 1, 3 ] } }",
    }
    for name, policy in policies.items():
        inputs, outputs = [("x", "FP32", [4], "")], [("y", "FP32", [4], "")]
        folder(top / name, "onnxruntime", 8, inputs, outputs, policy)
        for version in (1, 2, 3):
            onnx_models.scaled(top / name / str(version) / "model.onnx", version)


REFUSED = {
    "sequence": "sequence_batching { max_sequence_idle_microseconds: 5000000 }",
    "decoupled": "model_transaction_policy { decoupled: true }",
    "ragged": "",
}


def _refused(top: Path) -> None:
    """Write models of the kinds that are not served."""
    for name, more in REFUSED.items():
        ragged = "allow_ragged_batch: true" if name == "ragged" else ""
        inputs, outputs = [("x", "FP32", [4], ragged)], [("y", "FP32", [4], "")]
        onnx_models.scaled(folder(top / name, "onnxruntime", 8, inputs, outputs, more), 1)
    (top / "ensemble" / "1").mkdir(parents=True)
    (top / "ensemble" / "config.pbtxt").write_text(textwrap.dedent(ENSEMBLE))
    (top / "saved_model" / "1" / "model.savedmodel").mkdir(parents=True)
    (top / "saved_model" / "1" / "model.savedmodel" / "saved_model.pb").write_bytes(b"\x08\x01")
    (top / "saved_model" / "config.pbtxt").write_text('platform: "tensorflow_savedmodel"\n')
    text = [("INPUT__0", "STRING", [-1], "")], [("OUTPUT__0", "STRING", [-1], "")]
    path = folder(top / "libtorch_STRING", "pytorch", 0, *text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Texts()), path)


class Texts(torch.nn.Module):
    """A model that takes texts, as TorchScript has them."""

    def forward(self, texts: list[str]) -> list[str]:
        """Return the texts."""
        return texts


ENSEMBLE = """
    name: "ensemble"
    platform: "ensemble"
    max_batch_size: 8
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
    ensemble_scheduling {
      step [ { model_name: "joined" model_version: -1
               input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } ]
    }
"""

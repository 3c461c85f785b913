"""Sessions of ONNX Runtime: the options that a model's spec may set, and where a session runs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import files, options, prerequisites

_OPTIMIZATIONS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}

ERROR_PREFIXES = ("[ONNXRuntimeError] :",)

_SMALL_BYTES = 64 * 1024
"""Up to this size `basic` is the default optimization: it takes a third less memory and load time
than `all`, and the model runs as fast."""

SMALLEST_MODEL = (
    b'\x08\x08:/\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0b\n\x01x\x12\x06\n\x04\x08\x01'
    b"\x12\x00b\x0b\n\x01y\x12\x06\n\x04\x08\x01\x12\x00B\x04\n\x00\x10\r"
)
"""The graph y = Identity(x). Its run makes ONNX Runtime allocate memory that sessions share."""

_INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_DATATYPES = {name: name.upper() for name in _INTEGERS} | {
    "bool": "BOOL",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}

CLASS_SCORES = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
"""Types of a classifier's output after ZipMap: for each row a map from class to score."""


def import_runtime() -> Any:
    """Return the library. Raises MissingExtra."""
    return prerequisites.import_library("onnxruntime", "ONNX Runtime", "onnx")


@functools.cache
def warm_up(device: str) -> None:
    """Run a session once on the device. Raises MissingExtra or LoadFailed."""
    library = import_runtime()
    plain = session_options(library, model.ModelSpec(model.ModelId(""), ""), 0)
    session = library.InferenceSession(
        SMALLEST_MODEL, plain, providers=execution_providers(library, device)
    )
    session.run(None, {"x": np.zeros((), np.float32)})


def session_options(library: Any, spec: model.ModelSpec, size_bytes: int) -> Any:
    """Return ONNX Runtime's SessionOptions from the spec's options.

    These are `intra_op_num_threads`, `inter_op_num_threads`, `enable_cpu_mem_arena`,
    `enable_mem_pattern` and `graph_optimization`. Raises LoadFailed for others or wrong values.
    """
    reader = options.Options(spec)
    chosen = library.SessionOptions()
    # Thousands of sessions share the cores. A thread pool and an arena for each session would take
    # more memory than a small model.
    chosen.intra_op_num_threads = reader.count("intra_op_num_threads", 1)
    chosen.inter_op_num_threads = reader.count("inter_op_num_threads", 1)
    chosen.enable_cpu_mem_arena = reader.flag("enable_cpu_mem_arena", default=False)
    chosen.enable_mem_pattern = reader.flag("enable_mem_pattern", default=False)
    default = "basic" if size_bytes <= _SMALL_BYTES else "all"
    level = _OPTIMIZATIONS[reader.choice("graph_optimization", _OPTIMIZATIONS, default)]
    chosen.graph_optimization_level = getattr(library.GraphOptimizationLevel, level)
    # Level 4 logs nothing but fatal errors; all others come as exceptions.
    chosen.log_severity_level = 4
    reader.check_known()
    return chosen


def execution_providers(library: Any, device: str) -> list[Any]:
    """Return what runs a session on the device. Raises LoadFailed without CUDA for it."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in library.get_available_providers():
        raise errors.LoadFailed(
            "ONNX Runtime is installed without CUDA: "
            "pip install onnxruntime-gpu in place of onnxruntime"
        )
    # By default an arena grows by powers of two, beyond what the model needs.
    cuda_options = {"device_id": 0, "arena_extend_strategy": "kSameAsRequested"}
    # Operators that CUDA lacks run on the CPU.
    return [("CUDAExecutionProvider", cuda_options), "CPUExecutionProvider"]


def open_session(
    library: Any, name: str, content: str | bytes, chosen: Any, providers: list[Any]
) -> Any:
    """Return a session of a file's path, or of its bytes. Raises LoadFailed with the `name`."""
    try:
        return library.InferenceSession(content, chosen, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no other common base
        raise errors.LoadFailed(
            f"ONNX Runtime can't load {name}: {files.summarize(error, ERROR_PREFIXES)}"
        ) from error


def shape_of(node: Any) -> tuple[int, ...]:
    """Return the shape of a session's input or output, -1 for any size."""
    return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)


def datatype_of(node: Any) -> str | None:
    """Return the datatype of a session's input or output, None if it is no tensor of one."""
    if not node.type.startswith("tensor("):
        return None
    return _DATATYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))


def input_spec(node: Any) -> model.TensorSpec:
    """Return the spec of a session's input. Raises LoadFailed if it can't be sent."""
    datatype = datatype_of(node)
    if datatype is None:
        raise errors.LoadFailed(
            f"input {node.name!r} is {node.type}, which can't be sent; "
            "add a Cast or a conversion to the graph"
        )
    return model.TensorSpec(node.name, datatype, shape_of(node))


def check_output(node: Any) -> None:
    """Raise LoadFailed if a session's output is neither a tensor nor scores by class."""
    if datatype_of(node) is None and node.type not in CLASS_SCORES:
        raise errors.LoadFailed(
            f"output {node.name!r} is {node.type}, which is not a tensor that can be sent; "
            "convert it in the graph"
        )

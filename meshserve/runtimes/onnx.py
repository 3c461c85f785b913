"""ONNX models by ONNX Runtime: names, datatypes and shapes are the session's, held against a first prediction."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cachetools
import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    datatypes,
    devices,
    files,
    optional_import,
    options,
    probing,
    signatures,
)

PLATFORM = "onnxruntime_onnx"

_WORDS = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float": "FP32", "double": "FP64", "string": "BYTES",
}  # fmt: skip

_CLASS_SCORES = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
"""What a classifier's ZipMap gives: for each row, a score by class."""

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}

_NOISE = ("[ONNXRuntimeError] :",)


_FIRST_FIELDS = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]")
"""Protobuf whose first field is `ir_version`, followed by another field of ModelProto."""

FORMS_MAX = 1 << 17

_SMALL_BYTES = 64 * 1024
"""Up to this size `basic` is the default optimisation: a third less memory and load time than `all`, and no slower to run."""

_SMALLEST_MODEL = (
    b'\x08\x08:/\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0b\n\x01x\x12\x06\n\x04\x08\x01'
    b"\x12\x00b\x0b\n\x01y\x12\x06\n\x04\x08\x01\x12\x00B\x04\n\x00\x10\r"
)
"""y = Identity(x): run once, it makes ONNX Runtime allocate what all sessions share."""


def _looks_like_onnx(file: Path) -> bool:
    first = files.head(file, 8)
    return _FIRST_FIELDS.match(first) is not None or first[4:8] == b"ORTM"


LAYOUT = files.Layout(("model.onnx",), (".onnx", ".ort"), _looks_like_onnx)

Decode = Callable[[Any], np.ndarray]


@dataclass(frozen=True, slots=True)
class Form:
    """What sessions that take and give the same have in common. Kept once, however many such models are in memory."""

    signature: model.Signature
    scores: tuple[tuple[str, str], ...]
    probe_shapes: tuple[tuple[int, ...], ...]
    probe: Mapping[str, np.ndarray] | None = field(compare=False)
    names: list[str] = field(compare=False)
    texts: frozenset[str] = field(compare=False)
    decoders: Mapping[str, Decode] = field(compare=False)


def _form(session: Any, signature: model.Signature, probe: Mapping[str, np.ndarray] | None) -> Form:
    return Form(
        signature=signature,
        scores=tuple((node.name, node.type) for node in session.get_outputs()),
        probe_shapes=tuple(array.shape for array in (probe or {}).values()),
        probe=probe,
        names=[spec.name for spec in signature.outputs],
        texts=frozenset(spec.name for spec in signature.inputs if spec.datatype == "BYTES"),
        decoders=_decoders(session, {spec.name: spec.shape for spec in signature.outputs}),
    )


class OnnxModel(model_runtime.LoadedModel):
    """A session and its signature. Sessions may be run by many threads at once."""

    __slots__ = ("_decoders", "_names", "_run", "_session", "_texts", "probe", "signature")

    capabilities = model_runtime.Capabilities(is_reentrant=True)

    def __init__(self, session: Any, form: Form) -> None:
        self.signature = form.signature
        self.probe = form.probe
        self._session = session
        self._run = session.run
        self._names = form.names
        self._texts = form.texts
        self._decoders = form.decoders

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Run the session for the outputs asked for. Raises InvalidRequest where ONNX Runtime finds the values at fault."""
        names = list(outputs) or self._names
        if self._texts:
            inputs = {
                name: datatypes.as_texts(array) if name in self._texts else array
                for name, array in inputs.items()
            }
        try:
            given = self._run(names, inputs)
        except Exception as error:
            if type(error).__name__ == "InvalidArgument":
                raise errors.InvalidRequest(files.first_line(error, _NOISE)) from None
            raise
        if self._decoders:
            return {
                name: self._decoders.get(name, _as_is)(value)
                for name, value in zip(names, given, strict=True)
            }
        return dict(zip(names, given, strict=True))

    def close(self) -> None:
        """Let the session go, and its memory with it."""
        del self._session, self._run


def _as_is(value: Any) -> np.ndarray:
    return np.asarray(value)


def _decoders(session: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Decode]:
    """How outputs that are not plain tensors become tensors, by name; empty for most models."""
    decoders: dict[str, Decode] = {}
    for node in session.get_outputs():
        if node.type in _CLASS_SCORES:
            decoders[node.name] = functools.partial(
                _scores, classes=shapes.get(node.name, (-1, 0))[1]
            )
        elif node.type == "tensor(string)":
            decoders[node.name] = datatypes.as_bytes
    return decoders


def _scores(rows: Sequence[Mapping[Any, float]], classes: int) -> np.ndarray:
    """Scores by class as [rows, classes] FP32, in the order of the classes."""
    if not rows:
        return np.empty((0, classes), np.float32)
    return np.array([[row[key] for key in sorted(row)] for row in rows], dtype=np.float32)


class _VerifiedForms:
    """Forms by an artifact's digest and what was declared: the same bytes need no second proof.

    Equal forms are kept once. Several threads may call.
    """

    def __init__(self) -> None:
        self._forms: cachetools.LRUCache[object, Form] = cachetools.LRUCache(FORMS_MAX)
        self._equal_forms: cachetools.LRUCache[Form, Form] = cachetools.LRUCache(FORMS_MAX)
        self._lock = threading.Lock()

    def get(self, key: object) -> Form | None:
        """Return the form that was put for the key, if it is still known."""
        with self._lock:
            return self._forms.get(key)

    def put(self, key: object, form: Form) -> Form:
        """Remember the form; return it, or the equal one that other models have already."""
        with self._lock:
            form = self._equal_forms.setdefault(form, form)
            self._forms[key] = form
            return form


_FORMS = _VerifiedForms()


class OnnxRuntime(model_runtime.Runtime):
    """Loads `.onnx` (also with weights in files beside it) and `.ort`."""

    name = "onnx"
    needs_files = False

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Whether there is an ONNX file, by name or first bytes."""
        return LAYOUT.find(artifact.path) is not None

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """Weights are copied out of the file, and some are packed a second time for the kernels."""
        bytes_max = 2 * artifact.size_bytes + 256 * 1024
        return (
            model.Footprint(bytes_max, bytes_max + (16 << 20))
            if device == "cuda"
            else model.Footprint(bytes_max)
        )

    def prepare(self, device: str) -> None:
        """Import ONNX Runtime and run a session once. Raises MissingExtra, or LoadFailed where the device is not there."""
        devices.require_known(device)
        _warmed_up(device)

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> OnnxModel:
        """A session with one thread and no arena; see `_session_options` for what options change. Raises LoadFailed."""
        self.prepare(device)
        file = files.require(spec, artifact, LAYOUT)
        library = _library()
        chosen = _session_options(library, spec, artifact.size_bytes)
        session = _session(library, file, chosen, _providers(library, device))
        key = (artifact.digest, str(spec.options.get("file", "")), spec.inputs, spec.outputs)
        form = _FORMS.get(key) if artifact.is_cached else None
        return OnnxModel(session, form or _FORMS.put(key, _verified(session, spec)))


def _library() -> Any:
    return optional_import.require("onnxruntime", "ONNX Runtime", "onnx")


@functools.cache
def _warmed_up(device: str) -> None:
    library = _library()
    plain = _session_options(library, model.ModelSpec(model.ModelId(""), ""), 0)
    session = library.InferenceSession(
        _SMALLEST_MODEL, plain, providers=_providers(library, device)
    )
    session.run(None, {"x": np.zeros((), np.float32)})


def _session_options(library: Any, spec: model.ModelSpec, size_bytes: int) -> Any:
    """Read from `intra_op_num_threads`, `inter_op_num_threads`, `enable_cpu_mem_arena`, `enable_mem_pattern`, `graph_optimization`."""
    read = options.Options(spec)
    chosen = library.SessionOptions()
    chosen.intra_op_num_threads = read.count("intra_op_num_threads", 1)
    chosen.inter_op_num_threads = read.count("inter_op_num_threads", 1)
    chosen.enable_cpu_mem_arena = read.flag("enable_cpu_mem_arena", default=False)
    chosen.enable_mem_pattern = read.flag("enable_mem_pattern", default=False)
    level = _LEVELS[
        read.choice("graph_optimization", _LEVELS, "basic" if size_bytes <= _SMALL_BYTES else "all")
    ]
    chosen.graph_optimization_level = getattr(library.GraphOptimizationLevel, level)
    chosen.log_severity_level = 4  # what goes wrong is in the exception
    read.check_known()
    return chosen


def _providers(library: Any, device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in library.get_available_providers():
        raise errors.LoadFailed(
            "ONNX Runtime is installed without CUDA: pip install onnxruntime-gpu in place of onnxruntime"
        )
    return [
        ("CUDAExecutionProvider", {"device_id": 0, "arena_extend_strategy": "kSameAsRequested"}),
        "CPUExecutionProvider",
    ]


def _session(library: Any, file: Path, chosen: Any, providers: list[Any]) -> Any:
    try:
        return library.InferenceSession(str(file), chosen, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise errors.LoadFailed(
            f"ONNX Runtime can't load {file.name}: {files.first_line(error, _NOISE)}"
        ) from error


def _verified(session: Any, spec: model.ModelSpec) -> Form:
    """The form with a signature that a prediction has confirmed, and that agrees with what was declared."""
    nodes = session.get_outputs()
    for node in nodes:
        _check_output(node)
    inputs = _inputs(session, spec)
    probed = _probed(session, inputs, [node.name for node in nodes])
    found = tuple(_output_spec(node, probed) for node in nodes)
    signatures.check_names(spec.outputs, found, "output")
    outputs = (
        tuple(signatures.agreed(spec.outputs, probed.outputs if probed else found, "output"))
        if spec.outputs
        else found
    )
    is_batchable = (
        probed is not None and probed.is_batchable and signatures.are_batches((*inputs, *outputs))
    )
    signature = model.Signature(
        inputs, outputs, has_batch_dimension=is_batchable, can_join=is_batchable, platform=PLATFORM
    )
    return _form(session, signature, probed.inputs if probed else None)


def _inputs(session: Any, spec: model.ModelSpec) -> tuple[model.TensorSpec, ...]:
    """What the graph takes, narrowed to what was declared."""
    found = tuple(_input_spec(node) for node in session.get_inputs())
    signatures.check_names(spec.inputs, found, "input")
    if spec.inputs:
        signatures.check_all(spec.inputs, [input_.name for input_ in found], "input")
    return tuple(signatures.agreed(spec.inputs, found, "input"))


def _dimensions(node: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)


def _word(node: Any) -> str | None:
    return (
        _WORDS.get(node.type.removeprefix("tensor(").removesuffix(")"))
        if node.type.startswith("tensor(")
        else None
    )


def _input_spec(node: Any) -> model.TensorSpec:
    word = _word(node)
    if word is None:
        raise errors.LoadFailed(
            f"input {node.name!r} is {node.type}, which can't be sent; add a Cast or a conversion to the graph"
        )
    return model.TensorSpec(node.name, word, _dimensions(node))


def _check_output(node: Any) -> None:
    if _word(node) is None and node.type not in _CLASS_SCORES:
        raise errors.LoadFailed(
            f"output {node.name!r} is {node.type}, which is not a tensor that can be sent; convert it in the graph"
        )


def _output_spec(node: Any, probed: probing.Probed | None) -> model.TensorSpec:
    """As the graph says, corrected by what came out: graphs may lie about their outputs, and ONNX Runtime lets them."""
    found = {spec.name: spec for spec in probed.outputs}.get(node.name) if probed else None
    if node.type in _CLASS_SCORES:
        if found is None:
            raise errors.LoadFailed(
                f"output {node.name!r} is a map by class, and no first prediction could tell how many: export with zipmap=False"
            )
        return found
    said = model.TensorSpec(node.name, _word(node) or "", _dimensions(node))
    return said if found is None or _covers(said.shape, found.shape) else found


def _covers(wide: Sequence[int], narrow: Sequence[int]) -> bool:
    return len(wide) == len(narrow) and all(
        any_ in (-1, one) for any_, one in zip(wide, narrow, strict=True)
    )


def _probed(
    session: Any, inputs: tuple[model.TensorSpec, ...], names: list[str]
) -> probing.Probed | None:
    runner = OnnxModel(session, _form(session, model.Signature(inputs, ()), None))
    try:
        return probing.explore(lambda feed: runner.predict(feed, names), inputs)
    except probing.ProbeFailed:
        return None

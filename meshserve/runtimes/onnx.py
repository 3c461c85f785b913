"""ONNX models in ONNX Runtime. Signatures are the session's, verified by a first prediction."""

from __future__ import annotations

import functools
import mmap
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
    files,
    onnx_rows,
    onnx_sessions,
    onnx_state,
    prerequisites,
    probing,
    refusals,
    row_proof,
    signatures,
)

PLATFORM = "onnxruntime_onnx"
FORMS_MAX = 1 << 17

_FIRST_FIELDS = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]")
"""Protobuf whose first field is `ir_version`, followed by another field of ModelProto."""


def _looks_like_onnx(file: Path) -> bool:
    head = files.read_head(file, 8)
    # A FlatBuffers file has its identifier behind the first four bytes.
    return _FIRST_FIELDS.match(head) is not None or head[4:8] == b"ORTM"


LAYOUT = files.Layout(("model.onnx",), (".onnx", ".ort"), _looks_like_onnx)

Decode = Callable[[Any], np.ndarray]


@dataclass(frozen=True, slots=True)
class SessionForm:
    """The part of a model that is equal for sessions with the same inputs and outputs.

    Equal forms are kept once, because a worker holds thousands of models of few forms.
    """

    signature: model.Signature
    output_types: tuple[tuple[str, str], ...]
    probe_shapes: tuple[tuple[int, ...], ...]
    is_recurrent: bool
    keeps_state: bool
    probe: Mapping[str, np.ndarray] | None = field(compare=False)
    output_names: list[str] = field(compare=False)
    text_inputs: frozenset[str] = field(compare=False)
    decoders: Mapping[str, Decode] = field(compare=False)


def _form(
    session: Any,
    signature: model.Signature,
    probe: Mapping[str, np.ndarray] | None,
    *,
    is_recurrent: bool = False,
    keeps_state: bool = False,
) -> SessionForm:
    return SessionForm(
        signature=signature,
        output_types=tuple((node.name, node.type) for node in session.get_outputs()),
        probe_shapes=tuple(array.shape for array in (probe or {}).values()),
        is_recurrent=is_recurrent,
        keeps_state=keeps_state,
        probe=probe,
        output_names=[spec.name for spec in signature.outputs],
        text_inputs=frozenset(spec.name for spec in signature.inputs if spec.datatype == "BYTES"),
        decoders=_decoders(session, {spec.name: spec.shape for spec in signature.outputs}),
    )


class _VerifiedForms:
    """Forms by an artifact's digest and declaration: the same bytes are verified once.

    Several threads may call.
    """

    def __init__(self) -> None:
        self._forms: cachetools.LRUCache[object, SessionForm] = cachetools.LRUCache(FORMS_MAX)
        self._equal: cachetools.LRUCache[SessionForm, SessionForm] = cachetools.LRUCache(FORMS_MAX)
        self._lock = threading.Lock()

    def get(self, key: object) -> SessionForm | None:
        """Return the form that was put for the key, if it is still known."""
        with self._lock:
            return self._forms.get(key)

    def put(self, key: object, form: SessionForm) -> SessionForm:
        """Remember the form; return it, or the equal one that other models have already."""
        with self._lock:
            form = self._equal.setdefault(form, form)
            self._forms[key] = form
            return form


_FORMS = _VerifiedForms()


class OnnxModel(model_runtime.LoadedModel):
    """A session and its signature."""

    __slots__ = (
        "_decoders",
        "_output_names",
        "_run",
        "_session",
        "_text_inputs",
        "probe",
        "signature",
    )

    capabilities = model_runtime.Capabilities(is_reentrant=True)

    def __init__(self, session: Any, form: SessionForm) -> None:
        self.signature = form.signature
        self.probe = form.probe
        self._session = session
        self._run = session.run
        self._output_names = form.output_names
        self._text_inputs = form.text_inputs
        self._decoders = form.decoders

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Run the session. Shapes and datatypes are the signature's.

        Raises InvalidRequest if ONNX Runtime fails with the values.
        """
        names = list(outputs) or self._output_names
        if self._text_inputs:
            inputs = {
                name: datatypes.to_texts(array) if name in self._text_inputs else array
                for name, array in inputs.items()
            }
        try:
            values = self._run(names, inputs)
        except Exception as error:  # ONNX Runtime's exceptions have no other common base
            words = files.summarize(error, onnx_sessions.ERROR_PREFIXES)
            raise refusals.refusal(error, words) from error
        if self._decoders:
            return {
                name: self._decoders.get(name, np.asarray)(value)
                for name, value in zip(names, values, strict=True)
            }
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Free the session, and its memory with it."""
        del self._session, self._run


class RecurrentOnnxModel(OnnxModel):
    """A session with an operator of `_RECURRENT`: given no rows or no steps, they end the process.

    They do so in ONNX Runtime up to 1.32 at least.
    """

    __slots__ = ()

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Run the session. Shapes and datatypes are the signature's.

        Raises InvalidRequest for empty inputs, and if ONNX Runtime refuses the values.
        """
        for name, array in inputs.items():
            if not array.size:
                raise errors.InvalidRequest(
                    f"input {name!r} is empty, which ONNX Runtime can't run recurrent models on"
                )
        return super().predict(inputs, outputs)


def _model(session: Any, form: SessionForm) -> OnnxModel:
    return RecurrentOnnxModel(session, form) if form.is_recurrent else OnnxModel(session, form)


_RECURRENT = (b"\x04LSTM", b"\x03GRU", b"\x13DynamicQuantizeLSTM")
"""Names of operators as ONNX files have them, after their lengths. Quantized, LSTM has the last."""


def _has_recurrence(file: Path) -> bool:
    """Return whether the file has a recurrent operator; rarely true without, by chance."""
    if file.suffix == ".ort":
        # FlatBuffers have the lengths of texts in four bytes.
        names = tuple(bytes([name[0], 0, 0, 0]) + name[1:] for name in _RECURRENT)
    else:
        names = _RECURRENT
    # Mapped and not read, so that a big model is not in memory twice for a search.
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as content:
        return any(content.find(name) >= 0 for name in names)


def _decoders(session: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Decode]:
    """Return by output name how values that are not plain tensors become arrays."""
    decoders: dict[str, Decode] = {}
    for node in session.get_outputs():
        if node.type in onnx_sessions.CLASS_SCORES:
            classes = shapes.get(node.name, (-1, 0))[1]
            decoders[node.name] = functools.partial(_scores, classes=classes)
        elif node.type == "tensor(string)":
            decoders[node.name] = datatypes.to_bytes
    return decoders


def _scores(rows: Sequence[Mapping[Any, float]], classes: int) -> np.ndarray:
    """Return scores by class as FP32 of shape [rows, classes], sorted by class."""
    if not rows:
        # `np.array` would make one dimension of no rows.
        return np.empty((0, classes), np.float32)
    return np.array([[row[key] for key in sorted(row)] for row in rows], dtype=np.float32)


class OnnxRuntime(model_runtime.Runtime):
    """Loads `.onnx`, also with weights in files beside it, and `.ort`."""

    name = "onnx"
    needs_files = False

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether there is an ONNX file, by name or first bytes."""
        return LAYOUT.find(artifact.path) is not None

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """Return twice the file's size: weights are copied, and some packed again for kernels."""
        bytes_max = 2 * artifact.size_bytes + 256 * 1024
        return model.Footprint(bytes_max, bytes_max + (16 << 20) if device == "cuda" else 0)

    def prepare(self, device: str) -> None:
        """Import ONNX Runtime and run a session once. Raises MissingExtra or LoadFailed."""
        prerequisites.check_device(device)
        onnx_sessions.warm_up(device)

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> OnnxModel:
        """Load a session, by default with one thread and no arena. Raises LoadFailed.

        Options: see `onnx_sessions.session_options`.
        """
        self.prepare(device)
        file = files.find_model_file(spec, artifact, LAYOUT)
        library = onnx_sessions.import_runtime()
        open_session = functools.partial(
            onnx_sessions.open_session,
            library,
            file.name,
            chosen=onnx_sessions.session_options(library, spec, artifact.size_bytes),
            providers=onnx_sessions.execution_providers(library, device),
        )
        session = open_session(str(file))
        file_name = str(spec.options.get("file", ""))
        # All that a verified form depends on.
        key = (artifact.digest, file_name, spec.inputs, spec.outputs, spec.batching, spec.sample)
        # Other programs may write to a file outside of the cache after its digest was taken.
        form = _FORMS.get(key) if artifact.is_cached else None
        keeps_state = onnx_state.keeps_state(file) if form is None else form.keeps_state
        if keeps_state:
            session = onnx_state.forget_runs(session, file, open_session)
        if form is None:
            is_recurrent = _has_recurrence(file)
            form = _FORMS.put(
                key, _verify(session, spec, is_recurrent=is_recurrent, keeps_state=keeps_state)
            )
        return _model(session, form)

    def find_row_mixing(
        self,
        loaded: model_runtime.LoadedModel,
        artifact: model_runtime.Artifact,
        spec: model.ModelSpec,
    ) -> str | None:
        """Return None if symbols, operators and numbers show that rows are kept apart."""
        assert isinstance(loaded, OnnxModel), "a model of another runtime"
        if loaded.probe is None:
            return "the model took no made-up inputs"
        file = files.find_model_file(spec, artifact, LAYOUT)
        return onnx_rows.find_row_mixing(
            onnx_sessions.import_runtime(), file, loaded.probe
        ) or row_proof.find_difference(
            lambda feed: loaded.predict(feed, ()),
            loaded.signature.inputs,
            loaded.probe,
            signatures.rows_max(spec, loaded.signature),
        )


def _verify(
    session: Any, spec: model.ModelSpec, *, is_recurrent: bool, keeps_state: bool
) -> SessionForm:
    """Return the form, with a signature that agrees with a prediction and the declaration."""
    nodes = session.get_outputs()
    for node in nodes:
        onnx_sessions.check_output(node)
    inputs = _inputs(session, spec)
    sample = signatures.read_sample(spec, inputs)
    probed = _probe(session, inputs, [node.name for node in nodes], sample)
    actual = tuple(_output_spec(node, probed) for node in nodes)
    signatures.check_names(spec.outputs, actual, "output")
    outputs = actual
    if spec.outputs:
        actual = probed.outputs if probed else actual
        outputs = tuple(signatures.agree(spec.outputs, actual, "output"))
    is_batchable = probed is not None and probed.is_batchable
    has_rows, can_join = signatures.rows_joined(
        spec, (*inputs, *outputs), is_batchable=is_batchable, is_known=False
    )
    needed = [node.name for node in session.get_inputs()]
    signature = model.Signature(
        inputs,
        outputs,
        has_batch_dimension=has_rows,
        can_join=can_join,
        platform=PLATFORM,
        optional=frozenset(spec.name for spec in inputs).difference(needed),
    )
    return _form(
        session,
        signature,
        probed.inputs if probed else None,
        is_recurrent=is_recurrent,
        keeps_state=keeps_state,
    )


def _inputs(session: Any, spec: model.ModelSpec) -> tuple[model.TensorSpec, ...]:
    """Return the graph's inputs, narrowed to the declared ones; those with a value may be left out.

    An input that is an initializer too has a value of its own, and is offered if it is declared.
    """
    needed = tuple(onnx_sessions.input_spec(node) for node in session.get_inputs())
    declared = {spec.name for spec in spec.inputs}
    others = [onnx_sessions.input_spec(node) for node in session.get_overridable_initializers()]
    actual = (*needed, *(spec for spec in others if spec.name in declared))
    signatures.check_names(spec.inputs, actual, "input")
    if spec.inputs:
        signatures.check_complete(spec.inputs, [input_.name for input_ in needed], "input")
    return tuple(signatures.agree(spec.inputs, actual, "input"))


def _output_spec(node: Any, probed: probing.ProbeResult | None) -> model.TensorSpec:
    """Return the graph's spec of an output, or the probed one if the two contradict each other.

    ONNX Runtime lets graphs lie about the shapes of their outputs.
    """
    actual = {spec.name: spec for spec in probed.outputs}.get(node.name) if probed else None
    if node.type in onnx_sessions.CLASS_SCORES:
        if actual is None:
            raise errors.LoadFailed(
                f"output {node.name!r} is a map by class, and no first prediction could tell "
                "how many: export with zipmap=False"
            )
        return actual
    stated = model.TensorSpec(
        node.name, onnx_sessions.datatype_of(node) or "", onnx_sessions.shape_of(node)
    )
    return stated if actual is None or signatures.covers(stated.shape, actual.shape) else actual


def _probe(
    session: Any,
    inputs: tuple[model.TensorSpec, ...],
    names: list[str],
    sample: Mapping[str, np.ndarray] | None,
) -> probing.ProbeResult | None:
    unverified = OnnxModel(session, _form(session, model.Signature(inputs, ()), None))
    try:
        return probing.probe(lambda feed: unverified.predict(feed, names), inputs, sample)
    except probing.ProbeFailed as failed:
        if sample:
            raise signatures.refused_sample(failed.cause) from failed.cause
        return None

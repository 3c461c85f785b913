"""The conformance suite of the plug-in contract in `core/interfaces/model_runtime.py`.

A package that brings a runtime calls `check_runtime` in its own tests; the runtimes of meshserve
pass it too. It needs no test framework: a broken rule is an AssertionError that says which one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, probing, signatures
from meshserve.storage import content

PLAIN_SPEC = model.ModelSpec(model.ModelId("checked"), "")
THREADS = 4
CALLS = 40


@dataclass(frozen=True, slots=True)
class RuntimeCase:
    """A runtime, a model that it loads, and read-only inputs for the model, by name."""

    runtime: model_runtime.Runtime
    artifact: model_runtime.Artifact
    spec: model.ModelSpec
    inputs: Mapping[str, np.ndarray]

    def load(self, **changes: object) -> model_runtime.LoadedModel:
        """Load the model on the CPU, with changed fields of its spec."""
        return self._load(self.artifact, **changes)

    def load_from(self, path: Path) -> model_runtime.LoadedModel:
        """Load a changed copy of the model."""
        return self._load(artifact_at(path))

    def _load(
        self, artifact: model_runtime.Artifact, **changes: object
    ) -> model_runtime.LoadedModel:
        self.runtime.prepare("cpu")
        return self.runtime.load(artifact, replace(self.spec, **changes), "cpu")  # type: ignore[arg-type]


def check_runtime(
    runtime: model_runtime.Runtime,
    artifact: model_runtime.Artifact,
    *,
    spec: model.ModelSpec = PLAIN_SPEC,
    inputs: Mapping[str, np.ndarray] | None = None,
    expected: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Raise AssertionError at the first rule of the plug-in contract that the runtime breaks.

    `artifact` is one model (see `artifact_at`), `spec` how it is declared. `inputs` are arrays by
    name with the datatypes and shapes of the signature, and with two rows or more if there is a
    batch dimension; they are made up if left out. `expected` are the outputs for these inputs:
    floats are compared with tolerances of 1e-5 (relative) and 1e-6 (absolute), everything else
    exactly.
    Other exceptions of the runtime, such as for read-only inputs, are not caught.
    """
    case = make_case(runtime, artifact, spec, inputs)
    for check in CHECKS:
        check(case)
    if expected is not None:
        loaded = case.load()
        _assert_same(loaded.predict(case.inputs, ()), expected, "predict gave unexpected outputs")
        loaded.close()


def make_case(
    runtime: model_runtime.Runtime,
    artifact: model_runtime.Artifact,
    spec: model.ModelSpec = PLAIN_SPEC,
    inputs: Mapping[str, np.ndarray] | None = None,
) -> RuntimeCase:
    """Return the case that `CHECKS` take, so that each check can be a test of its own.

    The parameters are those of `check_runtime`, with the same datatypes and shapes.
    """
    assert isinstance(runtime, model_runtime.Runtime), "a runtime is a model_runtime.Runtime"
    if inputs is None:
        loaded = RuntimeCase(runtime, artifact, spec, {}).load()
        inputs = probing.make_up(loaded.signature.inputs, probing.FREE_SIZES[0])
        loaded.close()
    # In service inputs are views of a received message, which are read-only.
    copies = {name: array.copy() for name, array in inputs.items()}
    for array in copies.values():
        array.flags.writeable = False
    return RuntimeCase(runtime, artifact, spec, copies)


def artifact_at(path: Path) -> model_runtime.Artifact:
    """Return the file or folder at `path` as an artifact, as storage describes it.

    Raises LoadFailed for a folder without files.
    """
    size_bytes = content.count_bytes(path)
    return model_runtime.Artifact(path, content.digest(path), size_bytes)


def fits(array: np.ndarray, spec: model.TensorSpec) -> bool:
    """Return whether an array has the datatype and shape that a signature promises."""
    return (
        array.dtype == datatypes.NUMPY_TYPES[spec.datatype]
        and array.ndim == len(spec.shape)
        and all(wide in (-1, size) for wide, size in zip(spec.shape, array.shape, strict=True))
    )


def _assert_same(
    answer: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], message: str
) -> None:
    assert answer.keys() == expected.keys(), f"{message}: {[*answer]} instead of {[*expected]}"
    for name, array in expected.items():
        is_same = (
            np.allclose(answer[name], array, rtol=1e-5, atol=1e-6, equal_nan=True)
            if array.dtype.kind == "f"
            else np.array_equal(answer[name], array)
        )
        assert is_same, f"{message}: {name} is {answer[name]!r} instead of {array!r}"


def check_that_it_recognises_its_files(case: RuntimeCase) -> None:
    """`accepts` knows the runtime's own files, and leaves others to other runtimes."""
    assert case.runtime.accepts(case.artifact), "accepts must know the runtime's own artifact"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "README.md").write_text("no model")
        assert not case.runtime.accepts(artifact_at(Path(folder))), (
            "accepts must refuse a folder without a model"
        )


def check_that_devices_are_verified(case: RuntimeCase) -> None:
    """`prepare` can be called again, and refuses a device that does not exist."""
    case.runtime.prepare("cpu")
    case.runtime.prepare("cpu")
    try:
        case.runtime.prepare("tpu")
    except errors.LoadFailed:
        return
    raise AssertionError("prepare must raise LoadFailed for a device that does not exist")


def check_that_the_footprint_is_guessed(case: RuntimeCase) -> None:
    """On the CPU `footprint_hint` returns some host bytes and no GPU bytes."""
    hint = case.runtime.footprint_hint(case.artifact, "cpu")
    assert hint.host_bytes > 0, "footprint_hint must be an upper guess: more than 0 bytes"
    assert hint.gpu_bytes == 0, "footprint_hint must ask for no GPU bytes on the device cpu"


def check_that_the_signature_is_consistent(case: RuntimeCase) -> None:
    """Names are unique, datatypes are the protocol's, and a batch dimension is -1 everywhere."""
    loaded = case.load()
    signature = loaded.signature
    signatures.check_specs(signature.inputs, "input")
    signatures.check_specs(signature.outputs, "output")
    assert signature.outputs, "a model must have an output"
    assert signature.has_batch_dimension or not signature.can_join, (
        "can_join must imply has_batch_dimension"
    )
    assert not signature.has_batch_dimension or signatures.have_rows(
        (*signature.inputs, *signature.outputs)
    ), "with a batch dimension, the first dimension of every tensor must be -1"
    assert {spec.name for spec in signature.inputs} == case.inputs.keys(), (
        "the inputs to check with must be those of the signature"
    )
    assert not signature.has_batch_dimension or all(
        len(rows) > 1 for rows in case.inputs.values()
    ), "the inputs to check with must have several rows"
    loaded.close()


def check_that_outputs_fit_the_signature(case: RuntimeCase) -> None:
    """`predict` returns what the signature promises, and only the outputs that are asked for."""
    loaded = case.load()
    answer = loaded.predict(case.inputs, ())
    assert [*answer] == [spec.name for spec in loaded.signature.outputs], (
        f"predict must give the signature's outputs, in their order; it gave {[*answer]}"
    )
    for spec in loaded.signature.outputs:
        array = answer[spec.name]
        assert fits(array, spec), f"{spec} promises another array than {array!r}"
        asked = loaded.predict(case.inputs, [spec.name])
        assert [*asked] == [spec.name], "predict must give only the outputs that are asked for"
    loaded.close()


def check_that_the_probe_runs(case: RuntimeCase) -> None:
    """If there is a probe, it is one row that `predict` takes."""
    loaded = case.load()
    if loaded.probe is not None:
        for spec in loaded.signature.inputs:
            assert fits(loaded.probe[spec.name], spec), f"the probe does not fit {spec}"
        rows = {len(array) for array in loaded.probe.values()}
        assert rows == {1} or not loaded.signature.has_batch_dimension, "a probe must have one row"
        loaded.predict(loaded.probe, ())
    loaded.close()


def check_that_outputs_belong_to_the_caller(case: RuntimeCase) -> None:
    """Outputs belong to the caller: a later call does not write to them."""
    loaded = case.load()
    first = loaded.predict(case.inputs, ())
    kept = {name: array.copy() for name, array in first.items()}
    # Other values of the same shapes, which would show in a buffer that is used again.
    loaded.predict({name: np.flip(array).copy() for name, array in case.inputs.items()}, ())
    _assert_same(first, kept, "a later call of predict changed outputs that were given before")
    loaded.close()


def check_that_rows_are_independent(case: RuntimeCase) -> None:
    """If requests may be joined, a row's outputs are the same whatever other rows share its run."""
    loaded = case.load()
    if loaded.signature.can_join:
        together = loaded.predict(case.inputs, ())
        parts = [
            loaded.predict({name: array[part] for name, array in case.inputs.items()}, ())
            for part in (slice(1), slice(1, None))
        ]
        apart = {name: np.concatenate([part[name] for part in parts]) for name in together}
        _assert_same(apart, together, "can_join, but rows apart give other outputs than together")
    loaded.close()


def check_that_threads_do_not_disturb_each_other(case: RuntimeCase) -> None:
    """Several threads can load models at once, and call one model at once if it is reentrant."""
    with ThreadPoolExecutor(THREADS) as threads:
        copies = list(threads.map(lambda _: case.load(), range(THREADS)))
        answers = [copy.predict(case.inputs, ()) for copy in copies]
        if copies[0].capabilities.is_reentrant:
            answers += threads.map(lambda _: copies[0].predict(case.inputs, ()), range(CALLS))
    for answer in answers:
        _assert_same(answer, answers[0], "threads must not change each other's outputs")
    for copy in copies:
        copy.close()


def check_that_declarations_are_verified(case: RuntimeCase) -> None:
    """A declared signature is accepted if true, and refused with another output datatype."""
    loaded = case.load()
    signature = loaded.signature
    loaded.close()
    again = case.load(inputs=signature.inputs, outputs=signature.outputs)
    # Declared outputs are a promise, those that a first run has shown need not be one.
    wanted = replace(
        signature,
        has_open_outputs=again.signature.has_open_outputs,
        table=again.signature.table,
    )
    assert again.signature == wanted, f"declared {wanted}, but loaded {again.signature}"
    again.close()
    first, *others = signature.outputs
    untrue = replace(first, datatype="INT8" if first.datatype == "UINT8" else "UINT8")
    try:
        case.load(inputs=signature.inputs, outputs=(untrue, *others))
    except errors.LoadFailed:
        return
    raise AssertionError(f"load must raise LoadFailed if {first} is declared {untrue.datatype}")


def check_that_broken_files_are_refused(case: RuntimeCase) -> None:
    """`load` raises LoadFailed for empty files."""
    with tempfile.TemporaryDirectory() as folder:
        path = _copied(case.artifact, Path(folder))
        for name, _ in content.files(path):
            (path / name).write_bytes(b"")
        try:
            case.load_from(path)
        except errors.LoadFailed:
            return
    raise AssertionError("load must raise LoadFailed if the model's files are empty")


def check_that_files_are_needed_only_if_declared(case: RuntimeCase) -> None:
    """Unless the runtime `needs_files`, a loaded model works without its files."""
    if case.runtime.needs_files:
        return
    with tempfile.TemporaryDirectory() as folder:
        loaded = case.load_from(_copied(case.artifact, Path(folder)))
    loaded.predict(case.inputs, ())
    loaded.close()


def check_that_capabilities_are_implemented(case: RuntimeCase) -> None:
    """An attached model gives the same outputs as before; a detached one can be closed."""
    with tempfile.TemporaryDirectory() as folder:
        # Only files in the cache may be mapped, and only mapped weights can be detached.
        path = _copied(case.artifact, Path(folder))
        artifact = replace(artifact_at(path), is_cached=True)
        loaded = case.runtime.load(artifact, case.spec, "cpu")
        assert 0 <= loaded.capabilities.mapped_bytes <= artifact.size_bytes, (
            "mapped_bytes must be a part of the artifact's bytes"
        )
        if loaded.capabilities.can_detach:
            before = loaded.predict(case.inputs, ())
            loaded.detach()
            loaded.attach(artifact)
            after = loaded.predict(case.inputs, ())
            _assert_same(after, before, "an attached model must give the same outputs as before")
            loaded.detach()
        loaded.close()


def _copied(artifact: model_runtime.Artifact, folder: Path) -> Path:
    """Copy the artifact under its own name into `folder`, and make the copy writable."""
    source, target = Path(artifact.path), folder / artifact.path.name
    if source.is_dir():
        # copyfile leaves modes behind: files of the cache are read-only.
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)
    return target


CHECKS: tuple[Callable[[RuntimeCase], None], ...] = (
    check_that_it_recognises_its_files,
    check_that_devices_are_verified,
    check_that_the_footprint_is_guessed,
    check_that_the_signature_is_consistent,
    check_that_outputs_fit_the_signature,
    check_that_the_probe_runs,
    check_that_outputs_belong_to_the_caller,
    check_that_rows_are_independent,
    check_that_threads_do_not_disturb_each_other,
    check_that_declarations_are_verified,
    check_that_broken_files_are_refused,
    check_that_files_are_needed_only_if_declared,
    check_that_capabilities_are_implemented,
)
"""Every rule that can be checked on a CPU. `check_runtime` runs them in this order."""

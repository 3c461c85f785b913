# ruff: noqa: ARG001, ARG002  the contract names the parameters
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import prerequisites, signatures
from meshserve.testing import runtime_suite

ROWS = {"x": np.array([[1.0, -2.0], [3.0, 4.0], [5.0, 6.0]])}
SUMS = {"sum": np.array([-1.0, 7.0, 11.0])}
INPUTS = (model.TensorSpec("x", "FP64", (-1, 2)),)
OUTPUTS = (model.TensorSpec("sum", "FP64", (-1,)),)


class Summing(model_runtime.LoadedModel):
    """Sums each row, times the factor in its file."""

    capabilities = model_runtime.Capabilities(is_reentrant=True, can_detach=True, mapped_bytes=1)

    def __init__(self, path: Path, factor: Any) -> None:
        self.probe = {"x": np.ones((1, 2))}
        self.signature = model.Signature(INPUTS, OUTPUTS, has_batch_dimension=True, can_join=True)
        self.path = path
        self.factor = factor

    def predict(self, inputs: Any, outputs: Any) -> Any:
        answer = {"sum": inputs["x"].sum(axis=1) * self.factor}
        return {name: answer[name] for name in outputs or answer}

    def detach(self) -> None:
        self.factor = 0

    def attach(self, artifact: Any) -> None:
        self.factor = int(Path(artifact.path).read_text())

    def close(self) -> None:
        self.factor = 0


class SummingRuntime(model_runtime.Runtime):
    name = "summing"
    needs_files = False
    class_ = Summing

    def accepts(self, artifact: Any) -> Any:
        return artifact.path.suffix == ".factor"

    def prepare(self, device: str) -> None:
        prerequisites.check_device(device)

    def footprint_hint(self, artifact: Any, device: str) -> Any:
        return model.Footprint(artifact.size_bytes + 100)

    def load(self, artifact: Any, spec: Any, device: str) -> Any:
        signatures.agree(spec.outputs, OUTPUTS, "output")
        text = Path(artifact.path).read_text()
        if not text:
            raise errors.LoadFailed("the file is empty")
        return self.class_(artifact.path, int(text))


@pytest.fixture
def artifact(tmp_path: Path) -> Any:
    path = tmp_path / "one.factor"
    path.write_text("1")
    return runtime_suite.artifact_at(path)


def test_a_correct_runtime_passes(artifact: Any) -> None:
    runtime_suite.check_runtime(SummingRuntime(), artifact, inputs=ROWS, expected=SUMS)


def test_inputs_can_be_made_up(artifact: Any) -> None:
    runtime_suite.check_runtime(SummingRuntime(), artifact)


def test_unexpected_outputs_are_found(artifact: Any) -> None:
    wrong = {"sum": SUMS["sum"] + 1}
    with pytest.raises(AssertionError, match="predict gave unexpected outputs: sum"):
        runtime_suite.check_runtime(SummingRuntime(), artifact, inputs=ROWS, expected=wrong)


def test_inputs_of_one_row_prove_nothing(artifact: Any) -> None:
    with pytest.raises(AssertionError, match="several rows"):
        runtime_suite.check_runtime(SummingRuntime(), artifact, inputs={"x": ROWS["x"][:1]})


class AcceptsAll(SummingRuntime):
    def accepts(self, artifact: Any) -> Any:
        return True


class AcceptsNothing(SummingRuntime):
    def accepts(self, artifact: Any) -> Any:
        return False


class AnyDevice(SummingRuntime):
    def prepare(self, device: str) -> None:
        pass


class GuessesNothing(SummingRuntime):
    def footprint_hint(self, artifact: Any, device: str) -> Any:
        return model.Footprint()


class IgnoresDeclarations(SummingRuntime):
    def load(self, artifact: Any, spec: Any, device: str) -> Any:
        return super().load(artifact, model.ModelSpec(spec.id, spec.uri), device)


class LoadsEmptyFiles(SummingRuntime):
    def load(self, artifact: Any, spec: Any, device: str) -> Any:
        signatures.agree(spec.outputs, OUTPUTS, "output")
        return Summing(artifact.path, 1)


def broken(**members: Any) -> Any:
    """A runtime whose models have these members in place of Summing's."""
    class_ = type("Broken", (Summing,), members)
    return type("BrokenRuntime", (SummingRuntime,), {"class_": class_})


def with_signature(inputs: Any = INPUTS, outputs: Any = OUTPUTS, **fields: Any) -> Any:
    def init(self: Any, path: Path, factor: Any) -> None:
        Summing.__init__(self, path, factor)
        self.signature = model.Signature(inputs, outputs, **fields)

    return broken(__init__=init)


def with_probe(probe: Any) -> Any:
    def init(self: Any, path: Path, factor: Any) -> None:
        Summing.__init__(self, path, factor)
        self.probe = probe

    return broken(__init__=init)


def gives_all(self: Any, inputs: Any, outputs: Any) -> Any:
    return {"sum": inputs["x"].sum(axis=1), "other": inputs["x"]}


def changes_inputs(self: Any, inputs: Any, outputs: Any) -> Any:
    inputs["x"][:] = 0
    return Summing.predict(self, inputs, outputs)


def reuses_outputs(self: Any, inputs: Any, outputs: Any) -> Any:
    shared = self.__dict__.setdefault("shared", np.zeros(3))
    shared[: len(inputs["x"])] = inputs["x"].sum(axis=1) * self.factor
    return {"sum": shared[: len(inputs["x"])]}


def mixes_rows(self: Any, inputs: Any, outputs: Any) -> Any:
    return {"sum": inputs["x"].sum(axis=1) - inputs["x"].mean()}


def reads_its_file(self: Any, inputs: Any, outputs: Any) -> Any:
    self.path.read_text()
    return Summing.predict(self, inputs, outputs)


def has_other_outputs_in_its_thread(self: Any, inputs: Any, outputs: Any) -> Any:
    count = self.__dict__.setdefault("count", [])
    count.append(None)
    return {"sum": inputs["x"].sum(axis=1) + (len(count) > 10)}


def stays_detached(self: Any, artifact: Any) -> None:
    pass


BREAKS = {
    "must refuse a folder without a model": AcceptsAll,
    "must know the runtime's own artifact": AcceptsNothing,
    "a device that does not exist": AnyDevice,
    "an upper guess: more than 0 bytes": GuessesNothing,
    "load must raise LoadFailed if TensorSpec": IgnoresDeclarations,
    "if the model's files are empty": LoadsEmptyFiles,
    "can_join must imply has_batch_dimension": with_signature(can_join=True),
    "the first dimension of every tensor must be -1": with_signature(
        inputs=(model.TensorSpec("x", "FP64", (3, 2)),), has_batch_dimension=True
    ),
    "a model must have an output": with_signature(outputs=()),
    "must be those of the signature": with_signature(inputs=()),
    "promises another array": with_signature(outputs=(model.TensorSpec("sum", "FP32", (-1,)),)),
    "must give the signature's outputs, in their order": broken(predict=gives_all),
    "a probe must have one row": with_probe(ROWS),
    "the probe does not fit": with_probe({"x": np.ones((1, 2), np.float32)}),
    "read-only": broken(predict=changes_inputs),
    "changed outputs that were given before": broken(predict=reuses_outputs),
    "rows apart give other outputs": broken(predict=mixes_rows),
    "threads must not change each other's outputs": broken(predict=has_other_outputs_in_its_thread),
    "No such file": broken(predict=reads_its_file),
    "mapped_bytes must be a part": broken(
        capabilities=model_runtime.Capabilities(mapped_bytes=1 << 20)
    ),
    "an attached model must give the same outputs": broken(attach=stays_detached),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_broken_rule_is_named(rule: Any, artifact: Any) -> None:
    with pytest.raises((AssertionError, ValueError, OSError), match=rule):
        runtime_suite.check_runtime(BREAKS[rule](), artifact, inputs=ROWS)

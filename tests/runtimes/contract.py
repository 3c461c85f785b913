"""The tests that every shipped runtime must pass, run over a real model of each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import prerequisites, runtime_lookup
from meshserve.testing import runtime_suite

ID = model.ModelId("m")


def artifact(path: Path) -> model_runtime.Artifact:
    """The artifact at `path`; unlike storage's, it may be an empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return model_runtime.Artifact(path, "sha256:0", 0)
    return runtime_suite.artifact_at(path)


def spec(**fields: Any) -> model.ModelSpec:
    """A spec of nothing but these fields."""
    return model.ModelSpec(ID, "file:///model", **fields)


def load(path: Path, device: str = "cpu", **fields: Any) -> model_runtime.LoadedModel:
    """Load the model at `path` as the worker does it."""
    declared, files = spec(**fields), artifact(path)
    return runtime_lookup.find(declared, files).load(files, declared, device)


@dataclass(frozen=True)
class Sample:
    """A model's file, rows for it, and what its own library answers."""

    runtime: str
    path: Path
    rows: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]
    fields: Mapping[str, Any] = field(default_factory=dict)
    library: str = ""

    def load(self, **fields: Any) -> model_runtime.LoadedModel:
        return load(self.path, **{**self.fields, **fields})

    @property
    def case(self) -> runtime_suite.RuntimeCase:
        return runtime_suite.make_case(
            runtime_lookup.by_name(self.runtime),
            artifact(self.path),
            spec(**self.fields),
            self.rows,
        )


class RuntimeContract:
    """A module with a subclass has a fixture `sample`, of the module's scope."""

    @pytest.mark.parametrize("check", runtime_suite.CHECKS, ids=lambda check: check.__name__)
    def test_the_shipped_suite_passes(self, sample: Sample, check: Any) -> None:
        check(sample.case)

    def test_its_file_is_recognised(self, sample: Sample) -> None:
        assert runtime_lookup.find(spec(), artifact(sample.path)).name == sample.runtime

    def test_its_file_is_recognised_in_a_folder_beside_others(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        shutil.copy(sample.path, tmp_path)
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "README.md").write_text("a model")
        (tmp_path / "labels.txt").write_text("cat\ndog\n")
        assert runtime_lookup.find(spec(), artifact(tmp_path)).name == sample.runtime
        load(tmp_path, **sample.fields).close()

    def test_answers_are_the_library_s_own(
        self, sample: Sample, loaded: model_runtime.LoadedModel
    ) -> None:
        answer = loaded.predict(sample.rows, ())
        assert answer.keys() == sample.answers.keys()
        for name, expected in sample.answers.items():
            np.testing.assert_array_equal(answer[name], expected)

    def test_its_signature_has_a_platform_and_a_probe(
        self, loaded: model_runtime.LoadedModel
    ) -> None:
        assert loaded.signature.platform
        assert loaded.signature.has_batch_dimension
        assert loaded.probe is not None
        assert all(runtime_suite.fits(loaded.probe[i.name], i) for i in loaded.signature.inputs)

    def test_a_declared_input_of_another_width_is_refused(
        self, sample: Sample, loaded: model_runtime.LoadedModel
    ) -> None:
        if sample.runtime == "python":
            pytest.skip("a user's class takes any width")
        first, *others = loaded.signature.inputs
        wrong = replace(first, shape=(*first.shape[:-1], first.shape[-1] + 1))

        # What refuses only values, and says so at the first request, may load.
        def load_and_ask() -> None:
            wide = sample.load(inputs=(wrong, *others))
            wide.predict({wrong.name: np.ones((1, *wrong.shape[1:]), np.float32)}, ())

        with pytest.raises((errors.LoadFailed, errors.InvalidRequest)):
            load_and_ask()

    @pytest.mark.parametrize(
        "change",
        [{"datatype": "UINT16"}, {"shape": (-1, 77)}, {"datatype": "FLOAT"}, {"shape": (-5,)}],
        ids=str,
    )
    def test_an_untrue_declared_output_is_refused(
        self, sample: Sample, loaded: model_runtime.LoadedModel, change: Any
    ) -> None:
        first, *others = loaded.signature.outputs
        with pytest.raises(errors.LoadFailed, match=first.name):
            sample.load(inputs=loaded.signature.inputs, outputs=(replace(first, **change), *others))

    def test_the_hint_is_an_upper_guess(self, sample: Sample) -> None:
        files = artifact(sample.path)
        hint = runtime_lookup.by_name(sample.runtime).footprint_hint(files, "cpu")
        assert hint.host_bytes > files.size_bytes

    def test_an_unknown_option_is_refused_with_the_nearest(self, sample: Sample) -> None:
        if sample.runtime == "python":
            pytest.skip("the options of a user's class are free")
        with pytest.raises(errors.LoadFailed, match="did you mean 'file'"):
            sample.load(options={**sample.fields.get("options", {}), "fil": 1})

    @pytest.mark.skipif(prerequisites.has_cuda(), reason="this machine has a GPU")
    def test_cuda_without_a_gpu_is_a_clear_error(self, sample: Sample) -> None:
        with pytest.raises(errors.LoadFailed, match="no CUDA GPU"):
            sample.load(device="cuda")

    def test_an_empty_file_is_refused(self, sample: Sample, tmp_path: Path) -> None:
        empty = tmp_path / sample.path.name
        empty.touch()
        with pytest.raises(errors.LoadFailed, match="is empty"):
            load(empty, **{**sample.fields, "runtime": sample.runtime})

    def test_a_missing_library_names_the_extra(
        self, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not sample.library:
            pytest.skip("needs no library")
        monkeypatch.setitem(sys.modules, sample.library, None)
        with pytest.raises(
            errors.MissingExtra, match=rf"pip install 'meshserve\[{sample.runtime}\]'"
        ):
            sample.load()


def survivors(sample: Sample, seed: int = 0, count: int = 60) -> Mapping[str, int]:
    """Count the broken copies of a model that were refused and loaded, in a process of their own.

    Fails the test if that process dies.
    """
    fields = repr({"trust": sample.fields.get("trust", False)})
    arguments = [sample.runtime, str(sample.path), str(seed), str(count), fields]
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtimes.broken", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    refused, loaded = map(int, done.stdout.splitlines()[-1].split())  # ONNX Runtime prints too
    return {"refused": refused, "loaded": loaded}

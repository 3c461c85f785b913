"""What every runtime keeps, run over a real model of each."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, devices, lookup

ID = model.ModelId("m")


def artifact(path: Path) -> model_runtime.Artifact:
    """The artifact at a path."""
    found = [
        file for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()
    ]
    contents = {str(file.relative_to(path)): file.read_bytes() for file in found}
    digest = hashlib.sha256(repr(contents).encode()).hexdigest()
    return model_runtime.Artifact(path, f"sha256:{digest}", sum(map(len, contents.values())))


def spec(**fields: object) -> model.ModelSpec:
    """A spec of nothing but these fields."""
    return model.ModelSpec(ID, "file:///model", **fields)


def load(path: Path, device: str = "cpu", **fields: object) -> model_runtime.LoadedModel:
    """Loaded as the worker does it."""
    asked, there = spec(**fields), artifact(path)
    return lookup.find(asked, there).load(there, asked, device)


@dataclass(frozen=True)
class Sample:
    """A model's file, rows for it, and what its own library says of them."""

    runtime: str
    path: Path
    rows: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]
    fields: Mapping[str, object] = field(default_factory=dict)
    library: str = ""
    batchable: bool = True

    def load(self, **fields: object) -> model_runtime.LoadedModel:
        return load(self.path, **{**self.fields, **fields})


def fits(array: np.ndarray, said: model.TensorSpec) -> bool:
    """Whether an array is what the signature promises."""
    same_type = array.dtype == datatypes.NUMPY_TYPES[said.datatype]
    return (
        same_type
        and array.ndim == len(said.shape)
        and all(size in (-1, is_) for size, is_ in zip(said.shape, array.shape, strict=True))
    )


class RuntimeContract:
    """A module with a subclass has a fixture `sample`, of the module's scope."""

    def test_its_file_is_recognised(self, sample):
        assert lookup.find(spec(), artifact(sample.path)).name == sample.runtime

    def test_its_file_is_recognised_in_a_folder_beside_others(self, sample, tmp_path):
        shutil.copy(sample.path, tmp_path)
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "README.md").write_text("a model")
        (tmp_path / "labels.txt").write_text("cat\ndog\n")
        assert lookup.find(spec(), artifact(tmp_path)).name == sample.runtime
        load(tmp_path, **sample.fields).close()

    def test_answers_are_the_library_s_own(self, sample, loaded):
        given = loaded.predict(sample.rows, ())
        assert given.keys() == sample.answers.keys()
        for name, expected in sample.answers.items():
            np.testing.assert_array_equal(given[name], expected)

    def test_rows_and_answers_fit_the_signature(self, sample, loaded):
        given = loaded.predict(sample.rows, ())
        assert {said.name for said in loaded.signature.inputs} == sample.rows.keys()
        assert all(fits(sample.rows[said.name], said) for said in loaded.signature.inputs)
        assert [said.name for said in loaded.signature.outputs] == list(given)
        assert all(fits(given[said.name], said) for said in loaded.signature.outputs)
        assert loaded.signature.platform

    def test_only_what_is_asked_for_is_given(self, sample, loaded):
        for name in sample.answers:
            assert list(loaded.predict(sample.rows, [name])) == [name]

    def test_the_probe_is_one_row_that_runs(self, loaded):
        given = loaded.predict(loaded.probe, ())
        assert all(fits(loaded.probe[said.name], said) for said in loaded.signature.inputs)
        assert all(fits(given[said.name], said) for said in loaded.signature.outputs)
        assert all(len(array) == 1 for array in loaded.probe.values())

    def test_it_is_batchable_as_expected_and_rows_are_independent(self, sample, loaded):
        assert loaded.signature.can_join == sample.batchable
        whole = loaded.predict(sample.rows, ())
        halves = [
            loaded.predict({name: rows[part] for name, rows in sample.rows.items()}, ())
            for part in (slice(2), slice(2, None))
        ]
        for name, together in whole.items():
            apart = np.concatenate([half[name] for half in halves])
            assert (
                np.allclose(together, apart)
                if together.dtype.kind == "f"
                else np.array_equal(together, apart)
            )

    def test_read_only_rows_are_taken(self, sample, loaded):
        rows = {name: array.copy() for name, array in sample.rows.items()}
        for array in rows.values():
            array.flags.writeable = False
        assert loaded.predict(rows, ()).keys() == sample.answers.keys()

    def test_threads_don_t_disturb_each_other(self, sample, loaded):
        if not loaded.capabilities.is_reentrant:
            pytest.skip("one thread at a time")
        with ThreadPoolExecutor(4) as threads:
            given = list(threads.map(lambda _: loaded.predict(sample.rows, ()), range(40)))
        assert all(
            np.array_equal(answer[name], sample.answers[name])
            for answer in given
            for name in sample.answers
        )

    def test_loads_at_the_same_time_don_t_disturb_each_other(self, sample):
        with ThreadPoolExecutor(4) as threads:
            copies = list(threads.map(lambda _: sample.load(), range(8)))
        for copy in copies:
            assert copy.predict(sample.rows, ()).keys() == sample.answers.keys()
            copy.close()

    def test_a_true_declaration_is_taken_and_wins(self, sample, loaded):
        declared = loaded.signature
        again = sample.load(inputs=declared.inputs, outputs=declared.outputs)
        assert again.signature == declared

    def test_a_declared_input_of_another_width_is_refused(self, sample, loaded):
        if sample.runtime == "python":
            pytest.skip("takes what it likes")
        first, *others = loaded.signature.inputs
        wrong = replace(first, shape=(*first.shape[:-1], first.shape[-1] + 1))
        with pytest.raises(errors.LoadFailed):
            sample.load(inputs=(wrong, *others))

    @pytest.mark.parametrize(
        "change",
        [{"datatype": "UINT16"}, {"shape": (-1, 77)}, {"datatype": "FLOAT"}, {"shape": (-5,)}],
        ids=str,
    )
    def test_an_untrue_declared_output_is_refused(self, sample, loaded, change):
        first, *others = loaded.signature.outputs
        with pytest.raises(errors.LoadFailed, match=first.name):
            sample.load(inputs=loaded.signature.inputs, outputs=(replace(first, **change), *others))

    def test_the_hint_is_an_upper_guess(self, sample):
        there = artifact(sample.path)
        hint = lookup.named(sample.runtime).footprint_hint(there, "cpu")
        assert hint.host_bytes > there.size_bytes
        assert hint.gpu_bytes == 0

    def test_an_unknown_option_is_refused_with_the_nearest(self, sample):
        if sample.runtime == "python":
            pytest.skip("its options are the user's")
        with pytest.raises(errors.LoadFailed, match="did you mean 'file'"):
            sample.load(options={**sample.fields.get("options", {}), "fil": 1})

    def test_an_unknown_device_is_refused(self, sample):
        with pytest.raises(errors.LoadFailed, match="tpu"):
            sample.load(device="tpu")

    @pytest.mark.skipif(devices.cuda_is_available(), reason="there is a GPU")
    def test_cuda_without_a_gpu_is_a_clear_error(self, sample):
        with pytest.raises(errors.LoadFailed, match="no CUDA GPU"):
            sample.load(device="cuda")

    def test_an_empty_file_is_refused(self, sample, tmp_path):
        empty = tmp_path / sample.path.name
        empty.touch()
        with pytest.raises(errors.LoadFailed, match="is empty"):
            load(empty, **{**sample.fields, "runtime": sample.runtime})

    def test_a_missing_library_names_the_extra(self, sample, monkeypatch):
        if not sample.library:
            pytest.skip("needs no library")
        monkeypatch.setitem(sys.modules, sample.library, None)
        with pytest.raises(
            errors.MissingExtra, match=rf"pip install 'meshserve\[{sample.runtime}\]'"
        ):
            sample.load()


def survivors(sample: Sample, seed: int = 0, count: int = 60) -> Mapping[str, int]:
    """How many broken copies of a model were refused and how many loaded, in a process of their own; fails the test if that one dies."""
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

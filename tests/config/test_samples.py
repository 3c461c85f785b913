from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from meshserve import config, errors
from meshserve.config import samples
from meshserve.core.values import model

VALUES = {"x": [[1.0, None], [2.5, 3.0]], "word": ["a", "b"]}


def write(folder: Path, suffix: str) -> str:
    path = folder / f"sample{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(VALUES))
    else:
        x = np.array([[1.0, np.nan], [2.5, 3.0]], np.float32)
        np.savez(path, x=x, word=np.array([b"a", b"b"]))
    return path.name


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_sample_is_read_from_a_file(tmp_path: Path, suffix: str) -> None:
    name = write(tmp_path, suffix)
    assert samples.read_sample(name, tmp_path) == VALUES
    assert samples.read_sample(str(tmp_path / name), None) == VALUES
    assert samples.read_sample(VALUES, None) is VALUES


def test_a_sample_travels_with_the_model(tmp_path: Path) -> None:
    entry = {"name": "m", "uri": "/m", "sample": str(tmp_path / write(tmp_path, ".npz"))}
    section = config.parse_model(entry)
    assert json.loads(section.spec(1, model.FROM_CONFIG).sample) == VALUES
    again = config.parse_model(section.model_dump(mode="json"))
    assert again.sample == VALUES


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("sample.json", "expected values or an absolute path"),
        ("/nowhere/sample.json", "/nowhere/sample.json can't be read as .json"),
        ([1, 2], "sample"),
        ({"x": [0] * (samples.ELEMENTS_MAX + 1)}, "a sample has up to 262,144 values"),
        ({"x": [[1.0, float("inf")]]}, "a sample has no infinite numbers"),
        ({"x": float("nan")}, "`null` for a missing one"),
    ],
)
def test_a_sample_that_is_none_is_refused(value: object, reason: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match=reason):
        config.parse_model({"name": "m", "uri": "/m", "sample": value})


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        samples.read_sample("s.npz", tmp_path)


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=np.zeros(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:60])
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    for name in ("cut.npz", "array.npz"):
        with pytest.raises(ValueError, match=rf"{name} can't be read as \.npz: it is no archive"):
            samples.read_sample(name, tmp_path)


def test_archives_with_entries_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "s.npz", "a") as archive:
        archive.writestr("notes.txt", "made by hand")
    with pytest.raises(ValueError, match=r"can't be read as \.npz: it has entries that are no"):
        samples.read_sample("s.npz", tmp_path)


def test_a_request_gives_a_sample_by_its_values(tmp_path: Path) -> None:
    file = tmp_path / "sample.json"
    file.write_text(json.dumps(VALUES))
    entry = {"name": "m", "uri": "s3://b/m", "sample": str(file)}
    assert config.parse_model(entry).sample == VALUES
    with pytest.raises(errors.ConfigInvalid, match="sample: expected values"):
        config.parse_model(entry, may_read=False)
    assert config.parse_model({**entry, "sample": VALUES}, may_read=False).sample == VALUES


def test_the_home_of_nobody_has_no_sample() -> None:
    with pytest.raises(ValueError, match="no-such-user"):
        samples.read_sample("~no-such-user/sample.json", None)


def test_a_damaged_archive_is_no_sample() -> None:
    damaged = Path(__file__).parent.parent / "fuzz" / "corpus" / "sample_npz" / "damaged-stream.npz"
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        samples.read_sample(str(damaged), None)

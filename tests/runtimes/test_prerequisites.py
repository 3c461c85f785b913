from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.runtimes import prerequisites


def test_an_installed_library_is_imported() -> None:
    assert prerequisites.import_library("json", "JSON", "json") is json


def test_a_missing_library_names_the_extra() -> None:
    with pytest.raises(
        errors.MissingExtra, match=r"needs Nothing: pip install 'meshserve\[nothing\]'"
    ):
        prerequisites.import_library("no_such_library.inner", "Nothing", "nothing")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("raise ImportError('a shared object is missing')", "shared object"),
    ],
)
def test_a_broken_library_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    (tmp_path / "broken_library.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.LoadFailed, match=f"Broken can't be imported: .*{reason}") as failed:
        prerequisites.import_library("broken_library", "Broken", "broken")
    assert type(failed.value) is errors.LoadFailed
    assert "broken_library" not in sys.modules


def test_the_cpu_is_always_accepted() -> None:
    prerequisites.check_device("cpu")


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(errors.LoadFailed, match="'gpu' does not exist; there is: cpu, cuda"):
        prerequisites.check_device("gpu")


def test_cuda_is_accepted_only_with_a_gpu() -> None:
    if prerequisites.has_cuda():
        prerequisites.check_device("cuda")
    else:
        with pytest.raises(errors.LoadFailed, match="no CUDA GPU or driver"):
            prerequisites.check_device("cuda")

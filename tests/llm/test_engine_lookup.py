from __future__ import annotations

from pathlib import Path

import pytest

from meshserve import errors
from meshserve.llm import engine_lookup, vllm_engine
from meshserve.testing import fake_engine

POINTS = """[meshserve.engines]
fake = meshserve.testing.fake_engine:FakeEngine
lost = no.such.module:Engine
wrong = meshserve.errors:MeshError
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package beside meshserve that brings engines."""
    folder = tmp_path / "others-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_vllms_engine_is_found_whether_vllm_is_installed_or_not() -> None:
    assert engine_lookup.find("vllm") is vllm_engine.VllmEngine


@pytest.mark.usefixtures("installed")
def test_the_engine_of_another_package_is_found_by_its_name() -> None:
    assert engine_lookup.find("fake") is fake_engine.FakeEngine
    assert engine_lookup.installed("fake") is fake_engine.FakeEngine


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fak", "does not exist; there are: vllm, fake, lost"),
        ("lost", "no.such.module:Engine"),
        ("wrong", "is not a llm_engine.Engine"),
    ],
)
def test_an_engine_that_can_not_be_used_fails_with_its_name(name: str, words: str) -> None:
    with pytest.raises(errors.LoadFailed, match=words):
        engine_lookup.find(name)
    assert engine_lookup.installed(name) is None

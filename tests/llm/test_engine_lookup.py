from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.llm import engine_lookup, vllm_engine
from meshserve.testing import fake_engine

POINTS = "[meshserve.engines]\nfake = meshserve.testing.fake_engine:FakeEngine\nlost = no.such.module:Engine\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package beside ours that brings engines."""
    about = tmp_path / "others-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_vllm_is_there_whether_it_is_installed_or_not():
    assert engine_lookup.find("vllm") is vllm_engine.VllmEngine


@pytest.mark.usefixtures("installed")
def test_another_package_s_engine_is_found_by_its_name():
    assert engine_lookup.find("fake") is fake_engine.FakeEngine


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [("fak", "does not exist; there are: vllm, fake, lost"), ("lost", "no.such.module:Engine")],
)
def test_what_can_t_be_had_is_said(name, words):
    with pytest.raises(errors.LoadFailed, match=words):
        engine_lookup.find(name)

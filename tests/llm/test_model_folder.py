from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshserve.llm import model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, max_position_embeddings=512)
    return tmp_path


def write(folder: Path, **config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def keys(uri: Path | str, **engine: Any) -> list[tuple[str, ...]]:
    return [fault.key for fault in model_folder.faults(str(uri), engine)]


def test_a_good_folder_and_one_that_is_elsewhere_pass(folder: Path) -> None:
    assert keys(folder) == keys(folder, max_model_len=512) == []
    assert keys("hf://org/tiny", max_model_len=9999) == keys("/no/such") == []


def test_a_longer_context_than_the_models_is_a_fault(folder: Path) -> None:
    assert keys(folder, max_model_len=513) == [("engine", "max_model_len")]
    assert keys(folder, max_model_len="512k") == keys(folder, max_model_len=-1) == []


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": 512, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"max_position_embeddings": 512, "model_max_length": 9999},
        {"text_config": {"max_position_embeddings": 512}},
        [],
    ],
)
def test_what_is_not_known_for_certain_passes(folder: Path, config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert keys(folder, max_model_len=2048) == []


def test_a_longer_context_may_be_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(model_folder.ALLOW_LONG, "1")
    assert keys(folder, max_model_len=9999) == []


def test_a_folder_without_a_readable_configuration_is_a_fault(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert keys(folder) == [("uri",)]
    (folder / "config.json").unlink()
    assert keys(folder) == [("uri",)]
    (folder / "params.json").touch()
    assert keys(folder) == []


def test_a_file_is_a_fault_unless_its_format_is_named(folder: Path) -> None:
    (folder / "m.gguf").touch()
    assert keys(folder / "m.gguf") == [("uri",)]
    assert keys(folder / "m.gguf", load_format="gguf") == []

from __future__ import annotations

import pytest

from meshserve import config, errors
from meshserve.cli import load_config
from meshserve.llm import validate_args

TEXT = """
llms:
  - {name: other, uri: /other, runtime: sglang, engine: {anything: 1}}
  - name: tiny
    uri: hf://org/tiny
    engine:
      max_model_len: 512
      max_modl_len: 512
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "c.yaml").write_text(TEXT.replace("/other", str(tmp_path)))
    return tmp_path / "c.yaml"


@pytest.fixture
def asked(monkeypatch):
    """What vLLM's parser is asked; it knows one argument only."""
    heard = []

    def check_all(engines):
        heard.append(engines)
        return {
            name: [(key, "no such argument") for key in engine if key != "max_model_len"]
            for name, engine in engines.items()
        }

    monkeypatch.setattr(validate_args, "check_all", check_all)
    return heard


def test_what_the_engine_does_not_take_has_file_line_and_field(file, asked):
    with pytest.raises(errors.ConfigInvalid) as caught:
        load_config.load(file)
    assert caught.value.message == f"{file}:8: llms[1].engine.max_modl_len: no such argument"
    assert asked == [{"tiny": {"max_model_len": 512, "max_modl_len": 512}}]


@pytest.mark.usefixtures("asked")
def test_what_it_takes_is_good(file):
    file.write_text(file.read_text().replace("      max_modl_len: 512\n", ""))
    assert load_config.load(file) == config.load(file)

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from pathlib import Path
from typing import Any

import pytest

from meshserve import config, errors
from meshserve.cli import config_commands
from meshserve.llm import vllm_args
from tests.cli import conftest

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
def file(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(TEXT.replace("/other", str(tmp_path)))
    return tmp_path / "c.yaml"


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments that vLLM's parser is asked to check; it knows `max_model_len` alone."""
    calls: list[dict[str, Any]] = []

    def check_in_child(sections: list[dict[str, Any]]) -> list[list[tuple[str, str]]]:
        calls.extend(sections)
        return [
            [(key, "no such argument") for key in section if key != "max_model_len"]
            for section in sections
        ]

    monkeypatch.setattr(vllm_args, "check_in_child", check_in_child)
    return calls


def test_a_wrong_engine_argument_has_file_line_and_field(
    file: Path, checked: list[dict[str, Any]]
) -> None:
    with pytest.raises(errors.ConfigInvalid) as caught:
        config_commands.load(file)
    assert caught.value.message == f"{file}:8: llms[1].engine.max_modl_len: no such argument"
    assert checked == [{"max_model_len": 512, "max_modl_len": 512}]


@pytest.mark.usefixtures("checked")
def test_good_engine_arguments_pass(file: Path) -> None:
    file.write_text(file.read_text().replace("      max_modl_len: 512\n", ""))
    assert config_commands.load(file) == config.load(file)


def test_schema_prints_the_json_schema(run: conftest.Run) -> None:
    assert json.loads(run("schema").stdout) == config.json_schema()


def test_check_describes_a_good_configuration(run: conftest.Run, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "c.yaml").write_text(
        "pools: {gpu: {device: cuda, gpu_memory: 1GiB, workers: 2}}\n"
        "models: [{name: a, uri: m.onnx}]\n"
    )
    done = run("config", "check", str(tmp_path / "c.yaml"))
    assert done.exit_code == 0
    assert "c.yaml is good: 1 model, 0 repositories" in done.stdout
    assert "default (auto × 4 GiB, cpu), gpu (2 × 4 GiB, cuda)" in done.stdout


def test_check_prints_every_fault_in_a_line_and_ends_with_2(
    run: conftest.Run, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("modles: []\npools: {a: {workers: 0}}\n")
    done = run("config", "check", str(file))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{file}:1: modles: unknown key; did you mean 'models'?",
        f"{file}:2: pools.a.workers: expected auto or a whole number of at least 1, got 0",
    ]


def test_what_a_server_lacks_is_a_fault_of_its_line(run: conftest.Run, tmp_path: Path) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Lacking) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_address[1]}/m.onnx"
        (tmp_path / "c.yaml").write_text(f"models:\n  - {{name: a, uri: '{uri}'}}\n")
        done = run("config", "check", str(tmp_path / "c.yaml"))
        server.shutdown()
    assert done.exit_code == 2
    assert done.stderr == f"{tmp_path}/c.yaml:2: models[0].uri: there is nothing at {uri}\n"


class Lacking(http.server.BaseHTTPRequestHandler):
    """Answers everything by 404."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Write nothing to the standard error that the test reads."""


def test_check_counts_llms(run: conftest.Run, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("llms: [{name: tiny, uri: hf://org/tiny}]\n")
    done = run("config", "check", str(tmp_path / "c.yaml"))
    assert done.exit_code == 0
    assert "is good: 0 models, 0 repositories, 1 LLM" in done.stdout
    settings = config.load(tmp_path / "c.yaml")
    is_checked = config_commands.can_check_engines(settings)
    assert ("were not checked" in done.stdout) != is_checked

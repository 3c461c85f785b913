"""`meshserve up` and `meshserve down`, with fakes in the place of `launch`."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from meshserve import config, errors
from meshserve.cli import up_down
from meshserve.launch import start_status
from meshserve.llm import vllm_args
from tests.cli import conftest, fake_mesh

ENDPOINT = "http://127.0.0.1:8080"
CONFIG = "models: [{name: digits, uri: m.onnx}]\n"


class FakeLaunch:
    """Stands for the three modules of `launch` that the commands call; records the calls.

    `wait` raises `failure` if one is set.
    """

    endpoint = ENDPOINT

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.starting: list[str] = []
        self.running = None
        self.failure = None
        self.is_lost = False

    def running_endpoint(self, _state_dir: Any) -> Any:
        return self.running

    def find_running(self, _state_dir: Any) -> Any:
        return self.running

    def logs_dir(self, state_dir: Path) -> Path:
        return state_dir / "logs"

    def client_endpoint(self, listen: str) -> str:
        return f"http://{listen}"

    def move(self, state_dir: Any, endpoint: str) -> None:
        self.calls.append(("move", state_dir, endpoint))

    def up(self, settings: Any, config_path: Any, address: Any, report: Any) -> Any:
        name = (*settings.models, *settings.llms)[0].name
        self.calls.append(("up", name, config_path, address))
        report(start_status.StartProgress("ray", 1, 1, "started"))
        return self

    def start(self, _settings: Any, config_path: Any, address: Any) -> Any:
        self.calls.append(("detach", config_path, address))
        return self.endpoint

    def down(self, state_dir: Any, endpoint: Any) -> None:
        self.calls.append(("down", state_dir, endpoint))

    def starting_llms(self, _endpoint: Any, _settings: Any) -> Any:
        return self.starting

    def wait(self) -> None:
        if self.failure:
            raise self.failure

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append("drained")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MESHSERVE_ENDPOINT", raising=False)
    return tmp_path / "home"


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Any) -> Any:  # noqa: ARG001 - no test may find the user's mesh
    fake = FakeLaunch()
    for module in ("lifecycle", "detach", "mesh_file"):
        monkeypatch.setattr(up_down, module, fake)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").touch()
    (tmp_path / "c.yaml").write_text(CONFIG)
    return fake


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt()])
def test_up_serves_until_it_is_ended_and_drains(
    launch: Any, run: conftest.Run, failure: Any
) -> None:
    launch.failure = failure
    done = run("up", "c.yaml", "--address", "auto")
    assert done.exit_code == 0
    assert launch.calls == [("up", "digits", "c.yaml", "auto"), "drained"]
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("Ray: ready, started", "the mesh has ended")


def test_a_lost_mesh_is_started_again_by_the_same_command(
    launch: Any, run: conftest.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, words: started.append(words[1:]))
    launch.is_lost = True
    assert "it is started again" in run("up", "c.yaml", "--verbose").stdout
    assert launch.calls == [("up", "digits", "c.yaml", None), "drained"]
    assert started == [["-P", "-m", "meshserve.cli", "up", "c.yaml", "--verbose"]]


@pytest.mark.usefixtures("launch")
def test_up_prints_commands_to_copy(run: conftest.Run) -> None:
    lines = run("up", "c.yaml").stdout.splitlines()
    assert "meshserve is ready at http://127.0.0.1:8080 (gRPC and REST)" in lines
    assert "  curl http://127.0.0.1:8080/v2/models/digits" in lines
    assert "  meshserve status" in lines


@pytest.mark.usefixtures("launch")
def test_commands_to_copy_name_a_mesh_with_its_own_state_directory(
    run: conftest.Run, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(f"state_dir: elsewhere\n{CONFIG}")
    lines = run("up", "c.yaml", "--detach").stdout.splitlines()
    assert "  meshserve status --endpoint http://127.0.0.1:8080" in lines
    assert lines[-1] == f"`MESHSERVE_HOME={tmp_path}/elsewhere meshserve down` drains and ends it."


def test_up_names_llms_that_are_starting(launch: Any, run: conftest.Run, tmp_path: Path) -> None:
    launch.starting = ["big", "bigger"]
    (tmp_path / "c.yaml").write_text(
        "llms: [{name: big, uri: hf://org/big}, {name: bigger, uri: hf://org/bigger}]\n"
    )
    lines = run("up", "c.yaml").stdout.splitlines()
    assert "2 LLMs are still starting: big, bigger" in lines
    (curl,) = [line for line in lines if "chat/completions" in line]
    assert '"model": "big"' in curl


def test_a_wrong_engine_argument_starts_nothing(
    launch: Any, run: conftest.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [[("max_modl_len", "vLLM has no such argument; did you mean 'max_model_len'?")]]
    monkeypatch.setattr(vllm_args, "check_in_child", lambda _: faults)
    (tmp_path / "c.yaml").write_text(
        "llms:\n  - name: big\n    uri: hf://org/big\n    engine:\n      max_modl_len: 7\n"
    )
    done = run("up", "c.yaml")
    assert (done.exit_code, launch.calls) == (2, [])
    assert done.stderr == (
        "c.yaml:5: llms[0].engine.max_modl_len: vLLM has no such argument; "
        "did you mean 'max_model_len'?\n"
    )


def test_up_detached(launch: Any, run: conftest.Run) -> None:
    done = run("up", "c.yaml", "--detach")
    assert launch.calls == [("detach", "c.yaml", None)]
    logs, ending = done.stdout.splitlines()[-2:]
    assert ending == "`meshserve down` drains and ends it."
    assert logs.startswith("logs: ")
    assert logs.endswith("/logs")


def test_a_detached_mesh_logs_in_the_form_of_the_command_line(
    launch: Any, run: conftest.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(up_down.LOG_FORMAT, "text")
    assert run("up", "c.yaml", "-d", "--log-format", "json").exit_code == 0
    assert (os.environ[up_down.LOG_FORMAT], launch.calls[0][0]) == ("json", "detach")
    assert run("up", "c.yaml", "--log-format", "xml").exit_code == 2


def test_a_second_up_applies_the_difference(
    launch: Any, run: conftest.Run, fake: fake_mesh.FakeMesh, tmp_path: Path
) -> None:
    launch.running = fake.endpoint
    fake.refusal = 200, '{"changes": ["model [x] added", "pool default: 2 → 3 workers"]}'
    done = run("up", "c.yaml")
    assert [call[0] for call in launch.calls] == ["move"]
    ((method, path, document),) = fake.requests
    assert (method, path) == ("POST", "/mesh/v1/apply")
    assert document == json.loads(json.dumps(config.document(config.load(tmp_path / "c.yaml"))))
    assert done.stdout.splitlines() == [
        f"a mesh is running at {fake.endpoint}: applied",
        "  model [x] added",
        "  pool default: 2 → 3 workers",
    ]


def test_a_second_up_without_a_difference(
    launch: Any, run: conftest.Run, fake: fake_mesh.FakeMesh
) -> None:
    launch.running = fake.endpoint
    fake.refusal = 200, '{"changes": []}'
    done = run("up", "c.yaml")
    assert done.stdout == f"a mesh is running at {fake.endpoint}: nothing to change\n"


def test_a_second_up_that_the_mesh_refuses_names_each_mistake(
    launch: Any, run: conftest.Run, fake: fake_mesh.FakeMesh
) -> None:
    launch.running = fake.endpoint
    fake.refusal = 400, '{"error": "a: wrong\\nb: wrong"}'
    done = run("up", "c.yaml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "a: wrong\nb: wrong" in done.stderr


def test_a_second_up_shows_the_admin_key_of_the_configuration(
    launch: Any, run: conftest.Run, fake: fake_mesh.FakeMesh, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(
        "gateway: {keys: [{client: a, key: k}, {client: b, key: k2, admin: true}]}\n"
    )
    launch.running = fake.endpoint
    fake.refusal = 200, '{"changes": []}'
    run("up", "c.yaml")
    assert fake.keys == ["Bearer k2"]


def test_a_bad_config_starts_nothing(launch: Any, run: conftest.Run, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("modles: []\n")
    done = run("up", "c.yaml")
    assert (done.exit_code, launch.calls) == (2, [])
    assert done.stderr == "c.yaml:1: modles: unknown key; did you mean 'models'?\n"


def test_a_failed_start_is_one_line(launch: Any, run: conftest.Run) -> None:
    launch.failure = errors.Unavailable("no worker\ncame up")
    done = run("up", "c.yaml")
    assert (done.exit_code, done.stderr) == (1, "error: no worker came up\n")
    assert launch.calls[-1] == "drained"


@pytest.mark.usefixtures("launch")
def test_verbose_logs_everything(run: conftest.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []
    monkeypatch.setattr(logging, "basicConfig", lambda **given: levels.append(given["level"]))
    run("up", "c.yaml", "--verbose")
    assert levels == [logging.INFO]


def test_sigterm_ends_up_like_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        up_down._interrupt(15, None)


def test_down_ends_the_mesh_that_was_started_here(
    launch: Any, run: conftest.Run, home: Any
) -> None:
    launch.running = "http://h:1"
    assert run("down").stdout == "http://h:1 has ended\n"
    assert launch.calls == [("down", home, None)]


def test_down_ends_a_named_mesh(launch: Any, run: conftest.Run, home: Any) -> None:
    assert run("down", "--endpoint", "http://h:2").stdout == "http://h:2 has ended\n"
    assert launch.calls == [("down", home, "http://h:2")]


def test_down_without_a_running_mesh(launch: Any, run: conftest.Run) -> None:
    done = run("down")
    assert (done.exit_code, done.stdout, launch.calls) == (3, "no mesh is running\n", [])

"""`meshserve up` with a mesh that only remembers what was asked of it."""

import logging
from typing import NamedTuple

import pytest

from meshserve import errors
from meshserve.cli import up
from meshserve.llm import validate_args

CONFIG = "models: [{name: digits, uri: m.onnx}]\n"


class Step(NamedTuple):
    step: str
    done: int
    total: int
    detail: str


class FakeApp:
    """A composition root that composes nothing. `wait` ends as `ending` says; `asked` is what was asked for, in order."""

    endpoint = "http://127.0.0.1:8080"

    def __init__(self):
        self.asked = []
        self.changes, self.starting = [], []
        self.is_running = False
        self.ending = None

    def running(self, _state_dir):
        return self.endpoint if self.is_running else None

    def up(self, read, config_path, address, on_progress):
        self.asked.append(("up", (*read.models, *read.llms)[0].name, config_path, address))
        on_progress(Step("ray", 1, 1, "started"))
        return self

    def apply(self, endpoint, read):
        self.asked.append(("apply", endpoint, len(read.models)))
        return self.changes

    def spawn_detached(self, config_path, address):
        self.asked.append(("spawn_detached", config_path, address))
        return self.endpoint

    def starting_llms(self, _endpoint, _read):
        return self.starting

    def wait(self):
        if self.ending:
            raise self.ending

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.asked.append("drained")


@pytest.fixture
def app(monkeypatch, tmp_path):
    fake = FakeApp()
    monkeypatch.setattr(up, "app", fake)
    monkeypatch.setattr(up.signal, "signal", lambda *_: None)
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").touch()
    (tmp_path / "c.yaml").write_text(CONFIG)
    return fake


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt()])
def test_it_serves_until_it_is_ended_and_drains(app, run, ending):
    app.ending = ending
    done = run("up", "c.yaml", "--address", "auto")
    assert done.exit_code == 0
    assert app.asked == [("up", "digits", "c.yaml", "auto"), "drained"]
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("Ray: ready, started", "the mesh has ended")


@pytest.mark.usefixtures("app")
def test_it_says_what_to_try_next(run):
    lines = run("up", "c.yaml").stdout.splitlines()
    assert "meshserve is ready at http://127.0.0.1:8080 (gRPC and REST)" in lines
    assert "  curl http://127.0.0.1:8080/v2/models/digits" in lines
    assert "  meshserve status" in lines


@pytest.mark.usefixtures("app")
def test_a_mesh_with_a_state_directory_of_its_own_is_named_in_what_to_try(run, tmp_path):
    (tmp_path / "c.yaml").write_text(f"state_dir: elsewhere\n{CONFIG}")
    lines = run("up", "c.yaml", "--detach").stdout.splitlines()
    assert "  meshserve status --endpoint http://127.0.0.1:8080" in lines
    assert lines[-1] == f"`MESHSERVE_HOME={tmp_path}/elsewhere meshserve down` drains and ends it."


def test_llms_that_still_start_are_named(app, run, tmp_path):
    app.starting = ["big", "bigger"]
    (tmp_path / "c.yaml").write_text(
        "llms: [{name: big, uri: hf://org/big}, {name: bigger, uri: hf://org/bigger}]\n"
    )
    lines = run("up", "c.yaml").stdout.splitlines()
    assert "2 LLMs are still starting: big, bigger" in lines
    (curl,) = [line for line in lines if "chat/completions" in line]
    assert '"model": "big"' in curl


def test_a_wrong_engine_argument_starts_nothing(app, run, tmp_path, monkeypatch):
    faults = {"big": [("max_modl_len", "vLLM has no such argument; did you mean 'max_model_len'?")]}
    monkeypatch.setattr(validate_args, "check_all", lambda _: faults)
    (tmp_path / "c.yaml").write_text(
        "llms:\n  - name: big\n    uri: hf://org/big\n    engine:\n      max_modl_len: 7\n"
    )
    done = run("up", "c.yaml")
    assert (done.exit_code, app.asked) == (2, [])
    assert (
        done.stderr
        == "c.yaml:5: llms[0].engine.max_modl_len: vLLM has no such argument; did you mean 'max_model_len'?\n"
    )


def test_detached(app, run):
    done = run("up", "c.yaml", "--detach")
    assert app.asked == [("spawn_detached", "c.yaml", None)]
    assert done.stdout.splitlines()[-1] == "`meshserve down` drains and ends it."


def test_a_second_up_applies_the_difference(app, run):
    app.is_running, app.changes = True, ["model [x] added", "pool default: 2 → 3 workers"]
    done = run("up", "c.yaml")
    assert app.asked == [("apply", app.endpoint, 1)]
    assert done.stdout.splitlines() == [
        f"a mesh is running at {app.endpoint}: applied",
        "  model [x] added",
        "  pool default: 2 → 3 workers",
    ]


def test_a_second_up_without_a_difference(app, run):
    app.is_running = True
    assert run("up", "c.yaml").stdout == f"a mesh is running at {app.endpoint}: nothing to change\n"


def test_a_bad_config_starts_nothing(app, run, tmp_path):
    (tmp_path / "c.yaml").write_text("modles: []\n")
    done = run("up", "c.yaml")
    assert (done.exit_code, app.asked) == (2, [])
    assert done.stderr == "c.yaml:1: modles: unknown key; did you mean 'models'?\n"


def test_a_mesh_that_does_not_come_up_is_one_line(app, run):
    app.ending = errors.Unavailable("no worker\ncame up")
    done = run("up", "c.yaml")
    assert (done.exit_code, done.stderr) == (1, "error: no worker came up\n")
    assert app.asked[-1] == "drained"


@pytest.mark.usefixtures("app")
def test_verbose_lets_everything_speak(run, monkeypatch):
    levels = []
    monkeypatch.setattr(logging, "basicConfig", lambda **given: levels.append(given["level"]))
    run("up", "c.yaml", "--verbose")
    assert levels == [logging.INFO]


def test_sigterm_is_like_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        up._interrupt(15, None)

"""The program as a whole: the list of commands, exit codes, signals and start-up time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli import conftest, fake_mesh

HEAVY = {"ray", "numpy", "grpc", "torch"}


def test_help_lists_the_commands_in_order(run: conftest.Run) -> None:
    done = run("--help")
    words = [
        line.split()[1]
        for line in done.stdout.splitlines()
        if line.startswith("│ ") and not line.startswith(("│  ", "│ -"))
    ]
    assert (done.exit_code, words) == (
        0,
        [
            "up",
            "drain",
            "down",
            "status",
            "top",
            "logs",
            "events",
            "infer",
            "schema",
            "manifest",
            "models",
            "config",
        ],
    )


def test_version(run: conftest.Run) -> None:
    assert run("--version").stdout.startswith("meshserve 0.")


@pytest.mark.usefixtures("fake")
def test_status_is_a_table(run: conftest.Run) -> None:
    done = run("status")
    assert done.exit_code == 0
    assert "default-0" in done.stdout


def test_status_as_json_is_the_answer_of_the_mesh(
    fake: fake_mesh.FakeMesh, run: conftest.Run
) -> None:
    assert json.loads(run("status", "--json").stdout) == fake.state


@pytest.mark.parametrize(
    "words",
    [
        ["statu"],
        ["status", "--jsn"],
        ["models", "show"],
        ["top", "--interval", "x"],
        ["models", "list", "--limit", "0"],
    ],
)
def test_a_bad_command_line_ends_with_2(run: conftest.Run, words: Any) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


@pytest.mark.edge
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["config", "check", "no.yaml"], 2, "no.yaml: no such file or directory\n"),
        (
            ["status"],
            1,
            "error: no mesh was started from this machine ({home}/mesh.json is not there); ",
        ),
        (
            ["status", "--endpoint", "ftp://x"],
            2,
            "--endpoint ftp://x: expected HOST:PORT or http://HOST:PORT\n",
        ),
    ],
)
def test_exit_codes_of_the_real_program(
    process: Any, tmp_path: Path, words: Any, code: int, said: str
) -> None:
    done = process(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said.format(home=tmp_path))
    assert "Traceback" not in done.stderr


@pytest.mark.edge
def test_the_mesh_that_was_started_from_here_is_found(
    fake: fake_mesh.FakeMesh, process: Any, tmp_path: Path
) -> None:
    (tmp_path / "mesh.json").write_text(json.dumps({"endpoint": fake.endpoint}))
    done = process("models", "list", MESHSERVE_ENDPOINT="")
    assert (done.returncode, done.stderr) == (0, "")
    assert "breast-cancer" in done.stdout


@pytest.mark.edge
def test_the_module_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("json", "numpy", "typer", "typing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(__file__)")
    command = [sys.executable, "-m", "meshserve.cli", "--version"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.edge
def test_a_closed_pipe_is_no_error(fake: fake_mesh.FakeMesh, tmp_path: Path) -> None:
    program = f"{sys.executable} -c '{conftest.PROGRAM}'"
    command = f"{program} models list --endpoint {fake.endpoint} 2>err | head -n 1 >/dev/null"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, timeout=60, check=True)
    assert (tmp_path / "err").read_text() == ""


@pytest.mark.edge
def test_ctrl_c_prints_no_traceback(tmp_path: Path) -> None:
    fifo = tmp_path / "in"
    os.mkfifo(fifo)
    command = [sys.executable, "-c", conftest.PROGRAM, "config", "check", str(fifo)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        # opening the far end waits until the program reads
        far = os.open(fifo, os.O_WRONLY)
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=30)
        os.close(far)
    assert (waiting.returncode, said) == (130, "")


@pytest.mark.edge
def test_other_commands_import_no_heavy_library() -> None:
    program = (
        f"import sys; from meshserve.cli import main; print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_status_shows_llms_where_there_are_any(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    assert "ttft" not in run("status").stdout
    fake.state["llms"] = [fake_mesh.llm("tiny", fake_mesh.replica("tiny/0"))]
    assert "ttft" in run("status").stdout

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import environments

EMPTY = environments.Environment("empty", ())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Record the commands of environments instead of running them; one with `broken` fails."""
    commands = []

    def run(command: Any) -> None:
        commands.append([str(word) for word in command])
        if "broken" in commands[-1]:
            raise environments.NotInstalled("ERROR: broken")
        if "venv" in commands[-1]:
            subprocess.run(commands[-1], check=True)

    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(environments, "_run", run)
    return commands


def test_it_is_made_once(installed: Any) -> None:
    environments.make_environment(EMPTY)
    folder = len(installed)
    assert environments.make_environment(EMPTY).exists()
    assert len(installed) == folder


def test_a_change_of_what_it_is_made_of_makes_it_anew(installed: Any) -> None:
    environments.make_environment(EMPTY)
    environments.make_environment(dataclasses.replace(EMPTY, packages=("other",)))
    assert installed[-1][-1] == "other"


@pytest.mark.usefixtures("installed")
def test_nothing_half_made_is_left(tmp_path: Path) -> None:
    with pytest.raises(environments.NotInstalled, match="broken"):
        environments.make_environment(dataclasses.replace(EMPTY, packages=("broken",)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("installed")
def test_a_patch_runs_whenever_its_python_starts(tmp_path: Path) -> None:
    patch = tmp_path / "patching_words.py"
    patch.write_text("print('patched')")
    python = environments.make_environment(dataclasses.replace(EMPTY, patch=patch))
    assert (
        subprocess.run([python, "-c", ""], capture_output=True, text=True, check=True).stdout
        == "patched\n"
    )


def test_a_failing_installation_says_its_last_error() -> None:
    with pytest.raises(environments.NotInstalled, match="ERROR: no such thing"):
        environments._run(
            ["sh", "-c", "echo working; echo 'ERROR: no such thing' >&2; echo hint >&2; exit 1"]
        )

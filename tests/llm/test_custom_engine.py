"""The example of a third party's engine, installed from its pyproject.toml without a network."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.runtimes import test_custom_runtime as third_party

EXAMPLE = third_party.ROOT / "examples" / "custom_engine"
FIND = "from meshserve.llm import engine_lookup; print(engine_lookup.find('parrot').__name__)"


@pytest.mark.edge
def test_the_example_installs_is_found_and_passes_its_own_tests(tmp_path: Path) -> None:
    # Setuptools leaves build folders beside what it builds.
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    site = tmp_path / "site"
    third_party.run(*third_party.PIP, "--target", site, source, path=())
    path = (site, third_party.ROOT)
    assert third_party.run(sys.executable, "-c", FIND, path=path) == "ParrotEngine\n"
    (source / "meshserve_parrot.py").unlink()
    pytest_command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull)
    output = third_party.run(*pytest_command, "--rootdir", source, source, path=path)
    assert "1 passed" in output

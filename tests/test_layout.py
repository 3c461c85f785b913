"""What holds for the tree as a whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import meshserve
from meshserve import config

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "meshserve"
MEASURE = ROOT.parent / "shared" / "tools" / "measure_style.py"
GENERATED = PACKAGE / "protocol" / "pb"
PUBLIC_NAMES = {"AsyncClient", "Client"}
UNFINISHED = re.compile(r"\b(TO" "DO|FIX" "ME|XXX)\b")

AT_MOST = {
    "function code, median": 7,
    "function code, p90": 20,
    "function code, max": 40,
    "parameters, p90": 3,
    "parameters, max": 6,
    "deepest nesting": 3,
    "file length, median": 120,
    "file length, p90": 300,
    "file length, max": 500,
    "deepest folder": 3,
    "cycles with deferred": 0,
    "deferred imports of own modules": 0,
    "docstring lines, median": 2,
    "docstring lines, p90": 8,
    "vague names, %": 0,
    "names bound at the root": 12,
    "broad excepts per 1000 code": 0.5,
    "type: ignore per 1000 code": 1,
}
AT_LEAST = {
    "public functions documented, %": 100,
    "public classes documented, %": 100,
    "annotated, %": 100,
    "I/O-free code, %": 40,
}
# Mock words: pytest's monkeypatch for environments and limits; there are no mock objects.
TESTS_AT_MOST = {
    "test code, median": 8,
    "test code, p90": 20,
    "mock words per test": 0.1,
    "file length, max": 400,
}


def written(*folders: str) -> list[Path]:
    """What people wrote in these folders."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.*"))
    return sorted(
        path
        for path in found
        if path.suffix in {".py", ".yaml", ".proto", ".md", ".lua"}
        and GENERATED not in path.parents
    )


NOTHING_RUNS = {
    "core/interfaces/model_runtime.py": "base classes and Protocols",
    "core/values/snapshots.py": "frozen values without methods",
}
SOURCES = [
    path.relative_to(PACKAGE)
    for path in written("meshserve")
    if path.suffix == ".py"
    and not path.name.startswith("__")
    and str(path.relative_to(PACKAGE)) not in NOTHING_RUNS
]
CONFIGS = written("configs")


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_every_source_file_has_a_test_file(source):
    assert (ROOT / "tests" / source.parent / f"test_{source.name}").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads_where_its_models_are(path, tmp_path):
    copied = tmp_path / "configs" / path.name
    copied.parent.mkdir()
    copied.write_text(path.read_text())
    read = yaml.safe_load(path.read_text())
    for entry in [*read.get("models", []), *read.get("llms", [])]:
        model = copied.parent / entry["uri"]
        model.parent.mkdir(parents=True, exist_ok=True)
        model.touch()
    loaded = config.load(copied)
    assert loaded.models or loaded.llms


def test_nothing_is_left_to_do():
    unfinished = [
        str(path)
        for path in written("meshserve", "tests", "bench", "configs", "proto")
        if UNFINISHED.search(path.read_text())
    ]
    assert unfinished == []


def test_the_public_names_are_those_that_were_promised():
    assert set(meshserve.__all__) == PUBLIC_NAMES
    assert all(hasattr(meshserve, name) for name in PUBLIC_NAMES)


def test_importing_the_package_is_cheap():
    heavy = {"grpc", "numpy", "ray", "torch", "pydantic"}
    program = f"import sys, meshserve; sys.exit(' '.join({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""


@pytest.fixture(scope="module")
def figures():
    if not MEASURE.exists():
        pytest.skip("the measuring script is not here")
    command = [sys.executable, MEASURE, "--without", "pb", "--json", PACKAGE, ROOT / "tests"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_package_is_within_its_figures(figures):
    package = figures[0]
    over = {name: package[name] for name, limit in AT_MOST.items() if package[name] > limit}
    under = {name: package[name] for name, limit in AT_LEAST.items() if package[name] < limit}
    assert over | under == {}


def test_the_tests_are_within_their_figures(figures):
    assert {
        name: figures[1][name] for name, limit in TESTS_AT_MOST.items() if figures[1][name] > limit
    } == {}

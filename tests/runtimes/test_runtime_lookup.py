from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.runtimes import runtime_lookup
from tests.runtimes import contract


@pytest.fixture
def another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package with a runtime for `.echo` files, three broken ones, and a built-in's name."""
    site = tmp_path / "site"
    about = site / "echo_runtime-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-runtime\nVersion: 1\n")
    classes = {
        "echo": "Echo",
        "broken": "Missing",
        "unfinished": "Unfinished",
        "stranger": "Stranger",
        "onnx": "Echo",
    }
    points = "".join(f"{name} = echo_runtime:{class_}\n" for name, class_ in classes.items())
    (about / "entry_points.txt").write_text(f"[meshserve.runtimes]\n{points}")
    source = """
        from meshserve.core.interfaces import model_runtime

        class Echo(model_runtime.Runtime):
            name = "echo"
            def accepts(self, artifact):
                return artifact.path.suffix == ".echo"
            def prepare(self, device): ...
            def footprint_hint(self, artifact, device): ...
            def load(self, artifact, spec, device): ...

        class Unfinished(model_runtime.Runtime):
            name = "unfinished"

        class Stranger:
            name = "stranger"
    """
    (site / "echo_runtime.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(site)
    yield
    runtime_lookup._third_party.cache_clear()
    runtime_lookup._load_third_party.cache_clear()


@pytest.fixture(autouse=True)
def fresh() -> None:
    runtime_lookup._third_party.cache_clear()
    runtime_lookup._load_third_party.cache_clear()


@pytest.mark.parametrize("name", ["onnx", "torch", "sklearn", "xgboost", "lightgbm", "python"])
def test_a_runtime_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    assert (
        runtime_lookup.find(contract.spec(runtime=name), contract.artifact(tmp_path)).name == name
    )


@pytest.mark.parametrize(("alias", "name"), sorted(runtime_lookup.ALIASES.items()))
def test_aliases_are_known(alias: Any, name: str) -> None:
    assert runtime_lookup.by_name(alias).name == name


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        errors.LoadFailed, match="runtime 'xgbost' does not exist; did you mean 'xgboost'"
    ):
        runtime_lookup.find(contract.spec(runtime="xgbost"), contract.artifact(tmp_path))
    with pytest.raises(errors.LoadFailed, match=r"there is: .*onnx, .*python"):
        runtime_lookup.by_name("qqq")


def test_an_unknown_artifact_lists_what_is_understood(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").touch()
    with pytest.raises(
        errors.LoadFailed,
        match=r"weights\.h5.*understood are model\.onnx \(onnx\).*model\.py \(python\)",
    ):
        runtime_lookup.find(contract.spec(), contract.artifact(tmp_path))


def test_the_option_file_narrows_the_choice(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    (tmp_path / "b.onnx").touch()
    (tmp_path / "c.pt2").touch()
    artifact = contract.artifact(tmp_path)
    for file, name in (("b.onnx", "onnx"), ("c.pt2", "torch")):
        assert runtime_lookup.find(contract.spec(options={"file": file}), artifact).name == name


def test_a_users_class_comes_before_other_files(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "model.py").touch()
    assert runtime_lookup.find(contract.spec(), contract.artifact(tmp_path)).name == "python"


@pytest.mark.usefixtures("another_package")
def test_another_package_adds_a_runtime(tmp_path: Path) -> None:
    (tmp_path / "m.echo").touch()
    assert runtime_lookup.by_name("echo").name == "echo"
    assert (
        runtime_lookup.find(contract.spec(), contract.artifact(tmp_path / "m.echo")).name == "echo"
    )
    assert set(runtime_lookup.names()) == {
        *runtime_lookup.BUILT_IN,
        "echo",
        "broken",
        "unfinished",
        "stranger",
    }


@pytest.mark.usefixtures("another_package")
def test_another_package_can_t_take_a_built_in_s_name() -> None:
    assert runtime_lookup.by_name("onnx") is runtime_lookup.BUILT_IN["onnx"]


@pytest.mark.usefixtures("another_package")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", r"\(echo_runtime:Missing\) can't be loaded"),
        ("unfinished", r"\(echo_runtime:Unfinished\) can't be loaded: .*abstract.*accepts"),
        ("stranger", r"\(echo_runtime:Stranger\) is not a model_runtime\.Runtime"),
    ],
)
def test_a_broken_runtime_of_another_package_is_named(name: str, reason: str) -> None:
    with pytest.raises(errors.LoadFailed, match=rf"runtime '{name}' {reason}"):
        runtime_lookup.by_name(name)


def test_built_in_runtimes_have_different_names() -> None:
    assert len(runtime_lookup.BUILT_IN) == len(runtime_lookup.RUNTIMES)


def test_a_class_of_mlservers_is_code_of_python() -> None:
    assert runtime_lookup.by_name("models.MyModel").name == "python"

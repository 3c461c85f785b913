from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer import testing

from meshserve.cli import main

GOOD = """
gateway: {keys: [{client: a, key_env: NOT_SET_HERE}]}
models: [{name: iris, uri: s3://bucket/iris.onnx}]
"""
BAD = """
kubernetes:
  name: Mesh
  patch: {rayVersion: "2.40.0"}
models:
  - {name: iris, uri: /data/iris.onnx}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(GOOD)
    return tmp_path / "c.yaml"


def call(*arguments: object) -> testing.Result:
    return testing.CliRunner().invoke(main.app, ["manifest", *map(str, arguments)])


def test_it_prints_what_is_applied(file: Path) -> None:
    done = call(file)
    assert done.exit_code == 0
    kinds = [document["kind"] for document in yaml.safe_load_all(done.stdout)]
    assert {"RayCluster", "ConfigMap", "Service", "NetworkPolicy"} <= set(kinds)


def test_it_writes_a_folder_for_kustomize(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    done = call(file, "--output", folder)
    assert (done.exit_code, done.stdout) == (0, "")
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(resources) == sorted(
        path.name for path in folder.iterdir() if path.name != "kustomization.yaml"
    )
    written = [yaml.safe_load((folder / name).read_text()) for name in resources]
    assert written == list(yaml.safe_load_all(call(file).stdout))


def test_nothing_is_printed_of_a_configuration_that_is_refused(file: Path, tmp_path: Path) -> None:
    file.write_text(BAD)
    done = call(file, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()
    assert f"{file}:6: models[0].uri: /data/iris.onnx is not in the pods" in done.stderr


def test_a_fault_of_kuberay_has_the_line_of_the_key(file: Path) -> None:
    file.write_text(BAD.replace("/data", "s3://b"))
    lines = call(file).stderr.splitlines()
    assert lines[0].startswith(f"{file}:3: kubernetes.name: 'Mesh': a name is lower-case")
    assert lines[1].startswith(f"{file}:4: kubernetes.patch: mode: token needs rayVersion 2.52.0")


def test_a_folder_that_cannot_be_written_is_told(file: Path) -> None:
    done = call(file, "-o", file / "below")
    assert done.exit_code == 1
    assert "Not a directory" in done.stderr

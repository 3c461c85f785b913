"""What the real kubectl says of the manifests, against an API server of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer import testing

from meshserve.cli import main
from tests.kubernetes import api_server, kubectl, meshes

pytestmark = pytest.mark.edge


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kubectl.unpack(tmp_path_factory.mktemp("kubectl"))


@pytest.fixture
def server() -> Iterator[api_server.ApiServer]:
    with api_server.running() as running:
        yield running


@pytest.fixture(params=[[], ["--serve"]], ids=["cluster", "service"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = meshes.write(meshes.FULL, tmp_path)
    arguments = ["manifest", str(file), "-o", str(tmp_path / "out"), *request.param]
    assert testing.CliRunner().invoke(main.app, arguments).exit_code == 0
    return tmp_path / "out"


def url(server: api_server.ApiServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_kustomize_changes_nothing(program: Path, folder: Path) -> None:
    done = kubectl.run(program, "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    written = [
        yaml.safe_load(path.read_text())
        for path in folder.iterdir()
        if path.name != "kustomization.yaml"
    ]
    names = {(item["kind"], item["metadata"]["name"]): item for item in written}
    for item in yaml.safe_load_all(done.stdout):
        assert names.pop((item["kind"], item["metadata"]["name"])) == item
    assert names == {}


def test_a_dry_run_on_the_server_takes_everything_and_keeps_nothing(
    program: Path, folder: Path, server: api_server.ApiServer
) -> None:
    arguments = ["apply", "--dry-run=server", "--validate=false", "-k", str(folder)]
    done = kubectl.run(program, *arguments, server=url(server))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("created (server dry run)") == len(list(folder.iterdir())) - 1
    assert {kind for kind, _ in server.written} == {"dry"}
    assert server.objects == {}


def test_a_diff_tells_what_a_change_would_do(
    program: Path, folder: Path, server: api_server.ApiServer
) -> None:
    apply = ["apply", "--validate=false", "-k", str(folder)]
    assert kubectl.run(program, *apply, server=url(server)).returncode == 0
    diff = ["diff", "-k", str(folder)]
    same = kubectl.run(program, *diff, server=url(server))
    assert (same.returncode, same.stdout) == (0, ""), same.stderr
    path = folder / "configmap-shop-config.yaml"
    path.write_text(path.read_text().replace("iris.onnx", "iris-2.onnx"))
    changed = kubectl.run(program, *diff, server=url(server))
    assert changed.returncode == 1
    assert "+    " in changed.stdout
    assert "iris-2.onnx" in changed.stdout


def test_the_server_refuses_a_field_that_the_schema_has_not(
    program: Path, folder: Path, server: api_server.ApiServer
) -> None:
    path = next(folder.glob("ray*.yaml"))
    path.write_text(path.read_text().replace("rayStartParams:", "rayStartParms:", 1))
    arguments = ["apply", "--dry-run=server", "--validate=false", "-f", str(path)]
    done = kubectl.run(program, *arguments, server=url(server))
    assert done.returncode == 1
    assert "rayStartParms" in done.stderr

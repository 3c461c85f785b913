"""One mesh for all tests that ask over the wire, and its clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.e2e import behaviours, running, zoo

REQUEST_BYTES_MAX = 2 << 20


@dataclass
class Models:
    """The models of the shared mesh, and the folder of their notes."""

    folder: Path
    kinds: tuple[zoo.Kind, ...]

    def noted(self, name: str) -> list[str]:
        return behaviours.noted(self.folder, name)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("zoo")
    return Models(folder, zoo.kinds(folder))


@pytest.fixture(scope="session")
def mesh(models: Models) -> Iterator[running.Mesh]:
    document = {
        "logging": {"access_log": 1},
        "gateway": {"request_bytes_max": REQUEST_BYTES_MAX},
        "pools": {
            "default": {"workers": 2, "memory": "1GiB"},
            "tight": {"workers": 1, "memory": behaviours.TIGHT_BYTES, "queue_max": 4},
        },
        "models": [*(kind.entry for kind in models.kinds), *behaviours.entries(models.folder)],
    }
    with running.mesh(document) as started:
        yield started


@pytest.fixture(scope="session")
def over_grpc(mesh: running.Mesh) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    with tritonclient.grpc.InferenceServerClient(mesh.listen) as client:
        yield client


@pytest.fixture(scope="session")
def over_http(mesh: running.Mesh) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(mesh.listen, network_timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def channel(mesh: running.Mesh) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(mesh.listen) as opened:
        yield opened

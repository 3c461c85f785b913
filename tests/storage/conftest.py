"""Real servers beside the tests: one for HTTP, one for S3."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import boto3
import pytest

from meshserve.core.interfaces import model_runtime
from meshserve.storage import artifact_cache, artifact_store
from tests import support
from tests.storage import web

OLD_S = 1_000_000_000
MIB = 1 << 20
WRONG = "sha256:" + "0" * 64


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def age(path: Path) -> Path:
    """Set the times of a file or folder to long ago."""
    for below in (path, *path.rglob("*")):
        os.utime(below, (OLD_S, OLD_S))
    return path


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def bytes_of(artifact: model_runtime.Artifact) -> bytes:
    return Path(artifact.path).read_bytes()


def spoil(artifact: model_runtime.Artifact, content: bytes | None) -> None:
    """Damage an artifact in the cache, or remove its file."""
    path = Path(artifact.path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def files_below(folder: PurePath) -> list[Path]:
    # os.walk passes over folders that another thread removes meanwhile.
    return sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Any]:
    def make(name: str, content: bytes = b"model", *, is_old: bool = True) -> Path:
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return age(path) if is_old else path

    return make


@pytest.fixture
async def artifacts(tmp_path: Path) -> AsyncIterator[artifact_store.ArtifactStore]:
    store = artifact_store.ArtifactStore(str(tmp_path / "cache"), 100 * MIB, 10 * MIB, settle_s=0.0)
    yield store
    await store.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[artifact_cache.ArtifactCache]:
    cache = artifact_cache.ArtifactCache(tmp_path / "cache", 100 * MIB, 10 * MIB, young_s=0.0)
    cache.slot.take()
    yield cache
    cache.slot.give_back()


@pytest.fixture
def site() -> Iterator[Any]:
    server = web.Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[Any]:
    port = support.free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        support.wait_until(lambda: is_open(port), timeout_s=15.0, what="moto's server")
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def environment() -> Iterator[Any]:
    before = dict(os.environ)
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def bucket(s3_endpoint: str, environment: dict[str, str]) -> Iterator[Any]:
    """Puts objects into a bucket that is `models`; the environment leads to it."""
    environment |= {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="models")

    def put(key: str, content: bytes) -> None:
        client.put_object(Bucket="models", Key=key, Body=content)

    yield put
    for object_ in client.list_objects_v2(Bucket="models").get("Contents", []):
        client.delete_object(Bucket="models", Key=object_["Key"])
    client.delete_bucket(Bucket="models")
    client.close()

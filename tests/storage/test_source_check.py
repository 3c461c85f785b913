from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.storage import remote_objects, source_check
from tests.storage import web

pytestmark = pytest.mark.edge


async def test_what_exists_passes(tmp_path: Path) -> None:
    (tmp_path / "a b.onnx").touch()
    for uri in (str(tmp_path), f"file://{tmp_path}/a%20b.onnx", f"file://{tmp_path}#stamp"):
        await source_check.check_exists(uri)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("/nowhere/model.onnx", "there is nothing at /nowhere/model.onnx"),
        ("file:///nowhere", "there is nothing at /nowhere"),
        ("model.onnx", "expected an absolute path"),
        ("ftp://host/model.onnx", "expected a path"),
    ],
)
async def test_what_is_missing_or_can_t_be_read_is_refused(uri: str, words: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=words):
        await source_check.check_exists(uri)


FAILURES = (OSError("unreachable"), errors.LoadFailed("too many files"), TimeoutError())


@pytest.mark.parametrize("failure", [FileNotFoundError(), *FAILURES], ids=repr)
async def test_an_object_that_is_missing_is_refused_and_a_store_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def fail(_: remote_objects.RemoteObjects) -> None:
        raise failure

    monkeypatch.setattr(remote_objects.RemoteObjects, "list", fail)
    if failure in FAILURES:
        assert await source_check.check_exists("s3://bucket/model")
    else:
        with pytest.raises(errors.InvalidRequest, match="there is nothing at s3://bucket/model"):
            await source_check.check_exists("s3://bucket/model")


@pytest.mark.parametrize("refuses_head", [False, True])
async def test_a_file_on_the_web_is_asked_for(site: web.Site, refuses_head: bool) -> None:
    site.files["/model.onnx"] = b"model"
    site.refuses_head = refuses_head
    unchecked = await source_check.check_exists(site.url("/model.onnx"))
    assert bool(unchecked) is refuses_head
    site.refuses_head = False
    with pytest.raises(errors.InvalidRequest, match="there is nothing at http"):
        await source_check.check_exists(site.url("/other.onnx?token=secret"))


async def test_a_server_that_knows_get_alone_has_its_file(site: web.Site) -> None:
    site.files["/model.onnx"] = b"model"
    site.has_head = False
    assert await source_check.check_exists(site.url("/model.onnx")) == ""


async def test_a_slow_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_check, "CHECK_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/model.onnx?token=secret"
        unchecked = await source_check.check_exists(uri)
    assert "did not answer" in unchecked
    assert "secret" not in unchecked


async def test_many_sources_are_checked_at_once(
    bucket: Callable[..., None], site: web.Site
) -> None:
    bucket("there/model.onnx", b"model")
    good, missing = "s3://models/there", "s3://models/elsewhere"
    assert await source_check.find_missing([good, missing, site.url("/m")]) == {
        missing: f"there is nothing at {missing}",
        site.url("/m"): f"there is nothing at {site.url('/m')}",
    }

from __future__ import annotations

from pathlib import Path

import pytest

from meshserve import errors
from meshserve.storage import remote_objects, source_check


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
async def test_an_object_that_is_missing_is_refused_and_a_store_that_fails_is_not(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def fail(_: remote_objects.RemoteObjects) -> None:
        raise failure

    monkeypatch.setattr(remote_objects.RemoteObjects, "list", fail)
    if failure in FAILURES:
        await source_check.check_exists("s3://bucket/model")
    else:
        with pytest.raises(errors.InvalidRequest, match="there is nothing at s3://bucket/model"):
            await source_check.check_exists("s3://bucket/model")

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.storage import model_uri


@pytest.mark.parametrize(
    ("uri", "kind", "path", "name"),
    [
        ("/m/a#b.onnx", "local", "/m/a#b.onnx", "a#b.onnx"),
        ("file:///m/a%20b.onnx#stamp", "local", "/m/a b.onnx", "a b.onnx"),
        ("file://localhost/m/v1/", "local", "/m/v1/", "v1"),
        ("https://host/m/a%20b.onnx?x=/y", "http", "/m/a b.onnx", "a b.onnx"),
        ("s3://bucket/m/a#b%20.onnx", "objects", "m/a#b%20.onnx", "a#b%20.onnx"),
        ("gs://bucket", "objects", "", ""),
        ("abfss://box@account.dfs.core.windows.net/m/v1/", "objects", "m/v1/", "v1"),
    ],
)
def test_uris_are_parsed(uri: str, kind: str, path: str, name: str) -> None:
    source = model_uri.parse(uri)
    assert (source.kind, source.path, source.name) == (kind, path, name)


def test_all_ways_to_write_a_path_are_one() -> None:
    assert (
        len(
            {
                model_uri.parse(uri)
                for uri in ("/m/a", "file:///m/a", "file:///m/a#stamp", "file://localhost/m/%61")
            }
        )
        == 1
    )


@pytest.mark.parametrize("name", ["m.zip", "M.TAR", "m.tar.gz", "m.v2.tgz"])
def test_archives_are_recognised_by_their_endings(name: str) -> None:
    assert model_uri.parse(f"/m/{name}").is_archive
    assert not model_uri.parse(f"/m/{name}/model.pt").is_archive


@pytest.mark.parametrize(
    "uri",
    ["a.onnx", "ftp://host/a", "file://host/a", "https:///a", "/a\0b", "", "hf://owner/model"],
)
def test_unsupported_uris_are_refused(uri: str) -> None:
    with pytest.raises(errors.LoadFailed, match=r"expected|another machine|null"):
        model_uri.parse(uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:word@host:1/a?token=x#y", "https://***@host:1/a?***"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("/a?b@c", "/a?b@c"),
    ],
)
def test_the_shown_uri_has_no_credentials(uri: str, shown: str) -> None:
    assert model_uri.redacted(uri) == model_uri.parse(uri).shown == shown

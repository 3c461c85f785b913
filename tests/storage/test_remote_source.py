from __future__ import annotations

import asyncio
import gzip
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors, tasks
from meshserve.storage import artifact_store
from tests import support
from tests.storage import web
from tests.storage.conftest import MIB, WRONG, bytes_of, files_below, sha
from tests.storage.test_archives import tarred, zipped

pytestmark = pytest.mark.edge


def packed_tar(files: dict[str, bytes]) -> bytes:
    return tarred(*((name, tarfile.REGTYPE, content) for name, content in files.items()))


def packed_tgz(files: dict[str, bytes]) -> bytes:
    return gzip.compress(packed_tar(files))


def read(folder: os.PathLike[str]) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_below(Path(folder))}


def again(tmp_path: Path) -> artifact_store.ArtifactStore:
    """What another process, or the same one started anew, sees."""
    return artifact_store.ArtifactStore(str(tmp_path / "cache"), 100 * MIB, 10 * MIB)


async def test_a_file_comes_over_http_with_its_query(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/m/a%20b.onnx?sig=1%2F2&x=y"] = b"model"
    fetched = await artifacts.fetch(site.url("/m/a%20b.onnx?sig=1%2F2&x=y"), sha(b"model"))
    assert (fetched.digest, fetched.size_bytes, fetched.path.name) == (sha(b"model"), 5, "a b.onnx")
    assert bytes_of(fetched) == b"model"


async def test_the_second_fetch_sends_no_request(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = b"model"
    fetched = await artifacts.fetch(site.url("/a.onnx"), "")
    assert await artifacts.fetch(site.url("/a.onnx"), "") == fetched
    assert site.asked == [("GET", "/a.onnx")]


async def test_many_at_once_are_one_download(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = b"model"
    fetched = await asyncio.gather(*(artifacts.fetch(site.url("/a.onnx"), "") for _ in range(50)))
    assert len(set(fetched)) == 1
    assert len(site.asked) == 1


async def test_one_who_leaves_does_not_end_the_download_of_others(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = os.urandom(MIB)
    one, other = (
        tasks.spawn(artifacts.fetch(site.url("/a.onnx"), ""), "fetch", is_awaited=True)
        for _ in range(2)
    )
    await asyncio.sleep(0)
    one.cancel()
    assert (await other).size_bytes == MIB
    assert one.cancelled()


async def test_a_new_process_asks_once_whether_it_changed(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = b"model"
    first = await artifacts.fetch(site.url("/a.onnx"), "")
    other = again(tmp_path)
    assert [await other.fetch(site.url("/a.onnx"), "") for _ in range(3)] == [first] * 3
    assert site.asked == [("GET", "/a.onnx"), ("HEAD", "/a.onnx")]
    await other.close()


async def test_a_new_process_sees_changes(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = b"model"
    await artifacts.fetch(site.url("/a.onnx"), "")
    site.files["/a.onnx"] = b"newer"
    other = again(tmp_path)
    assert (await other.fetch(site.url("/a.onnx"), "")).digest == sha(b"newer")
    await other.close()


@pytest.mark.parametrize("fault", ["gone", "head"])
async def test_an_unreachable_source_is_served_from_the_cache(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, site: web.Site, fault: Any
) -> None:
    site.files["/a.onnx"] = b"model"
    first = await artifacts.fetch(site.url("/a.onnx"), "")
    site.refuses_head = fault == "head"
    if fault == "gone":
        site.files.clear()
    other = again(tmp_path)
    assert await other.fetch(site.url("/a.onnx"), "") == first
    await other.close()


async def test_another_checksum_is_looked_for_anew(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = b"model"
    await artifacts.fetch(site.url("/a.onnx"), "")
    site.files["/a.onnx"] = b"newer"
    assert (await artifacts.fetch(site.url("/a.onnx"), "")).digest == sha(b"model")
    assert (await artifacts.fetch(site.url("/a.onnx"), sha(b"newer"))).digest == sha(b"newer")
    with pytest.raises(errors.LoadFailed, match=f"checksum {sha(b'newer')}, but {WRONG}"):
        await artifacts.fetch(site.url("/a.onnx"), WRONG)


async def test_a_broken_download_goes_on_where_it_stopped(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    content = os.urandom(3 * MIB)
    site.files["/a.onnx"], site.broken, site.failing = content, 2, 1
    assert (await artifacts.fetch(site.url("/a.onnx"), "")).digest == sha(content)
    assert len(site.asked) > 3


async def test_a_broken_download_without_ranges_says_why(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"], site.broken, site.has_ranges = os.urandom(3 * MIB), 1, False
    with pytest.raises(errors.LoadFailed, match="broke off"):
        await artifacts.fetch(site.url("/a.onnx"), "")


async def test_a_source_that_is_too_big_leaves_nothing(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = bytes(11 * MIB)
    with pytest.raises(
        errors.LoadFailed, match=r"a\.onnx is bigger than the limit of 10485760 bytes"
    ):
        await artifacts.fetch(site.url("/a.onnx"), "")
    assert [path.suffix for path in files_below(tmp_path / "cache")] == [".lock"]


async def test_a_missing_source_is_named_without_credentials(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    with pytest.raises(errors.LoadFailed) as raised:
        await artifacts.fetch(site.url("/a.onnx?sig=secret").replace("//", "//user:word@"), "")
    shown = site.url("/a.onnx?***").replace("//", "//***@")
    assert raised.value.message == f"{shown} can't be fetched: there is nothing there"


async def test_the_users_name_and_word_go_along(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/a.onnx"] = b"model"
    await artifacts.fetch(site.url("/a.onnx").replace("//", "//user:p%40ss@"), "")
    assert site.authorizations == ["Basic dXNlcjpwQHNz"]


@pytest.mark.parametrize(
    ("name", "pack"), [("m.zip", zipped), ("m.tar", packed_tar), ("m.tgz", packed_tgz)]
)
async def test_archives_become_folders(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, site: web.Site, name: str, pack: Any
) -> None:
    packed = pack({"top/a.onnx": b"model", "top/w/b.bin": b"weights", "top/.hidden": b"h"})
    site.files[f"/{name}"] = packed
    fetched = await artifacts.fetch(site.url(f"/{name}"), sha(packed))
    assert read(fetched.path) == {"a.onnx": b"model", "w/b.bin": b"weights"}
    (tmp_path / name).write_bytes(packed)
    assert await artifacts.fetch(str(tmp_path / name), sha(packed)) == fetched


async def test_a_hostile_archive_is_refused_with_its_uri(
    artifacts: artifact_store.ArtifactStore, site: web.Site
) -> None:
    site.files["/m.zip"] = zipped({"../a": b"x"})
    with pytest.raises(errors.LoadFailed, match=r"/m\.zip: the name '\.\./a' leads out"):
        await artifacts.fetch(site.url("/m.zip"), "")


async def test_an_object_comes_from_s3(
    artifacts: artifact_store.ArtifactStore, bucket: Callable[[str, bytes], None]
) -> None:
    bucket("a/x y%20#?.onnx", b"model")
    fetched = await artifacts.fetch("s3://models/a/x y%20#?.onnx", sha(b"model"))
    assert (fetched.digest, fetched.path.name) == (sha(b"model"), "x y%20#?.onnx")


@pytest.mark.parametrize("uri", ["s3://models/churn/v3", "s3://models/churn/v3/"])
async def test_a_prefix_of_s3_is_a_folder(
    artifacts: artifact_store.ArtifactStore,
    bucket: Callable[[str, bytes], None],
    make_file: Callable[..., Path],
    uri: str,
) -> None:
    for key, content in {
        "": b"",
        "w/": b"",
        "a.onnx": b"model",
        "w/b.bin": b"weights",
        ".hidden": b"h",
    }.items():
        bucket(f"churn/v3/{key}", content)
    bucket("churn/v33/other", b"x")
    make_file("local/a.onnx")
    local = make_file("local/w/b.bin", b"weights").parent.parent
    fetched = await artifacts.fetch(uri, "")
    assert read(fetched.path) == {"a.onnx": b"model", "w/b.bin": b"weights"}
    assert await artifacts.fetch(str(local), "") == fetched


async def test_a_new_process_sees_a_change_below_a_prefix(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, bucket: Callable[[str, bytes], None]
) -> None:
    bucket("m/a.onnx", b"model")
    first = await artifacts.fetch("s3://models/m", "")
    other, third = again(tmp_path), again(tmp_path)
    assert await other.fetch("s3://models/m", "") == first
    bucket("m/b.onnx", b"more")
    assert read((await third.fetch("s3://models/m", "")).path) == {
        "a.onnx": b"model",
        "b.onnx": b"more",
    }
    await other.close()
    await third.close()


async def test_a_folder_of_s3_that_is_too_big_is_refused(
    artifacts: artifact_store.ArtifactStore, bucket: Callable[[str, bytes], None]
) -> None:
    for number in range(3):
        bucket(f"m/{number}", bytes(4 * MIB))
    with pytest.raises(errors.LoadFailed, match="s3://models/m is bigger than the limit"):
        await artifacts.fetch("s3://models/m", "")


@pytest.mark.parametrize("uri", ["s3://models/nothing", "s3://models/nothing/", "s3://no-bucket/a"])
@pytest.mark.usefixtures("bucket")
async def test_a_missing_object_in_s3_is_one_sentence(
    artifacts: artifact_store.ArtifactStore, uri: str
) -> None:
    with pytest.raises(errors.LoadFailed, match=f"{uri} can't be fetched: [^\n]+$"):
        await artifacts.fetch(uri, "")


@pytest.mark.usefixtures("bucket")
async def test_http_without_tls_must_be_allowed(
    artifacts: artifact_store.ArtifactStore, environment: dict[str, str]
) -> None:
    del environment["AWS_ALLOW_HTTP"]
    with pytest.raises(errors.LoadFailed, match="AWS_ALLOW_HTTP=true is not set"):
        await artifacts.fetch("s3://models/a", "")


async def test_closing_ends_downloads(tmp_path: Path, site: web.Site) -> None:
    site.files["/a.onnx"], site.failing = b"model", 1000
    artifacts = again(tmp_path)
    fetching = tasks.spawn(artifacts.fetch(site.url("/a.onnx"), ""), "fetch", is_awaited=True)
    await support.wait_until_async(lambda: site.asked, what="a download")
    await artifacts.close()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert files_below(tmp_path / "cache") == []

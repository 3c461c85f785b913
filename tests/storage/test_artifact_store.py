from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meshserve import errors, tasks
from meshserve.core.interfaces import model_runtime
from meshserve.storage import artifact_store, content, model_uri
from tests import support
from tests.storage.conftest import MIB, WRONG, age, bytes_of, files_below, sha, spoil

YOUNG_S = 300.0


def is_same_file(one: model_runtime.Artifact, other: model_runtime.Artifact) -> bool:
    return Path(one.path).samefile(other.path)


def hit(
    store: artifact_store.ArtifactStore, uri: str, checksum: str
) -> model_runtime.Artifact | None:
    """What a fetch would return without any work."""
    return store._hit(model_uri.parse(uri), checksum)


async def test_a_path_and_its_file_uri_are_one_artifact(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = make_file("a b.onnx")
    plain = await artifacts.fetch(str(path), "")
    assert plain.digest == sha(b"model")
    assert plain.size_bytes == 5
    assert plain.path.name == "a b.onnx"
    assert bytes_of(plain) == b"model"
    assert await artifacts.fetch(f"file://{str(path).replace(' ', '%20')}#stamp", "") == plain


async def test_a_second_fetch_is_a_hit(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = str(make_file("a.onnx"))
    assert hit(artifacts, path, "") is None
    fetched = await artifacts.fetch(path, "")
    assert hit(artifacts, path, "") == fetched
    assert hit(artifacts, path, sha(b"model")) == fetched
    assert hit(artifacts, path, WRONG) is None


async def test_an_artifact_outlives_changes_of_its_source(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx")
    before = await artifacts.fetch(str(path), "")
    path.write_bytes(b"newer")
    after = await artifacts.fetch(str(path), "")
    assert (bytes_of(before), bytes_of(after)) == (b"model", b"newer")


async def test_a_fresh_file_is_read_again_because_times_are_coarse(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx", is_old=False)
    await artifacts.fetch(str(path), "")
    assert hit(artifacts, str(path), "") is None


async def test_the_same_bytes_under_two_names_are_one_copy(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    one = await artifacts.fetch(str(make_file("one.onnx")), "")
    other = await artifacts.fetch(str(make_file("other.onnx")), "")
    assert one.digest == other.digest
    assert (one.path.name, other.path.name) == ("one.onnx", "other.onnx")
    assert is_same_file(one, other)


async def test_the_same_folder_in_two_places_is_one_copy(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    one, other = make_file("one/w/x.bin"), make_file("other/w/x.bin")
    make_file("other/.git/config")
    fetched = [await artifacts.fetch(str(path.parent.parent), "") for path in (one, other)]
    assert fetched[0] == fetched[1]
    assert [path.read_bytes() for path in files_below(fetched[0].path)] == [b"model"]


async def test_a_folder_and_its_file_differ(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = make_file("folder/x.bin")
    assert (await artifacts.fetch(str(path), "")).digest != (
        await artifacts.fetch(str(path.parent), "")
    ).digest


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("/nowhere/model.onnx", "no such file"),
        ("models/a.onnx", "absolute path"),
        ("ftp://host/a", "expected a path"),
        ("file://elsewhere/a", "another machine"),
        ("/dev/null", "neither a file nor a folder"),
        ("https://", "expected a path"),
    ],
)
async def test_a_failed_fetch_names_its_uri(
    artifacts: artifact_store.ArtifactStore, uri: str, words: str
) -> None:
    with pytest.raises(errors.LoadFailed, match=words) as raised:
        await artifacts.fetch(uri, "")
    assert uri in raised.value.message


async def test_an_empty_folder_is_no_model(
    artifacts: artifact_store.ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.LoadFailed, match="holds no files"):
        await artifacts.fetch(str(tmp_path / "empty"), "")


async def test_checksums_are_held_against_the_bytes(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = str(make_file("a.onnx"))
    assert (await artifacts.fetch(path, sha(b"model"))).digest == sha(b"model")
    with pytest.raises(errors.LoadFailed, match=f"{sha(b'model')}, but {WRONG} was expected"):
        await artifacts.fetch(path, WRONG)
    with pytest.raises(errors.LoadFailed, match="64 hexadecimal digits"):
        await artifacts.fetch(path, "md5:abc")


async def test_a_file_bigger_than_the_cache_is_copied_all_the_same(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    content = os.urandom(3 * MIB)
    path = make_file("big.pt", content)
    artifacts = artifact_store.ArtifactStore(str(tmp_path / "cache"), MIB, MIB, settle_s=0.0)
    fetched = await artifacts.fetch(str(path), "")
    assert fetched.is_cached
    path.write_bytes(b"other")
    assert bytes_of(fetched) == content
    await artifacts.close()


async def test_a_damaged_entry_is_replaced(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = str(make_file("a.onnx"))
    spoil(await artifacts.fetch(path, ""), b"")
    other = artifact_store.ArtifactStore(str(tmp_path / "cache"), 100 * MIB, 10 * MIB, settle_s=0.0)
    assert bytes_of(await other.fetch(path, "")) == b"model"
    await other.close()


async def test_a_removed_entry_is_fetched_again(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = str(make_file("a.onnx"))
    spoil(await artifacts.fetch(path, ""), None)
    assert hit(artifacts, path, "") is None
    assert bytes_of(await artifacts.fetch(path, "")) == b"model"


async def test_a_cache_that_can_not_be_written_is_named(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    (tmp_path / "cache").write_bytes(b"no folder")
    artifacts = artifact_store.ArtifactStore(str(tmp_path / "cache"), MIB, MIB, settle_s=0.0)
    with pytest.raises(errors.LoadFailed, match="cache of artifacts fails"):
        await artifacts.fetch(str(make_file("a.onnx")), "")
    await artifacts.close()


async def test_held_artifacts_are_not_trimmed(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    artifacts = artifact_store.ArtifactStore(
        str(tmp_path / "cache"), 100_000, MIB, young_s=YOUNG_S, settle_s=0.0
    )
    paths = [str(make_file(f"{number}.bin", os.urandom(10_000))) for number in range(20)]
    held = await artifacts.fetch(paths[0], "")
    artifacts.hold(held)
    for path in paths[1:]:
        age(Path((await artifacts.fetch(path, "")).path).parent)
    await artifacts.trim()
    assert (
        sum(path.stat().st_size for path in files_below(tmp_path / "cache" / "objects")) <= 100_000
    )
    assert hit(artifacts, paths[0], "") == held
    artifacts.release(held)
    age(Path(held.path).parent)
    await asyncio.gather(*(artifacts.fetch(path, "") for path in paths[1:]))
    await artifacts.trim()
    assert hit(artifacts, paths[0], "") is None
    await artifacts.close()


async def test_artifacts_fetched_during_a_trim_exist(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    artifacts = artifact_store.ArtifactStore(
        str(tmp_path / "cache"), 100_000, MIB, young_s=YOUNG_S, settle_s=0.0
    )
    paths = [str(make_file(f"{number}.bin", os.urandom(10_000))) for number in range(40)]
    for _ in range(20):
        for entry in (tmp_path / "cache" / "objects").glob("*/*"):
            age(entry)
        fetching = asyncio.gather(*(artifacts.fetch(path, "") for path in paths))
        _, fetched = await asyncio.gather(artifacts.trim(), fetching)
        assert all(len(bytes_of(artifact)) == 10_000 for artifact in fetched)
    await artifacts.close()


async def test_trimming_happens_by_itself(tmp_path: Path, make_file: Callable[..., Path]) -> None:
    artifacts = artifact_store.ArtifactStore(
        str(tmp_path / "cache"), 100_000, MIB, young_s=YOUNG_S, settle_s=0.0
    )
    objects = tmp_path / "cache" / "objects"
    for number in range(30):
        fetched = await artifacts.fetch(str(make_file(f"{number}.bin", os.urandom(10_000))), "")
        age(Path(fetched.path).parent)
    await support.wait_until_async(lambda: len(files_below(objects)) <= 10, what="a trimmed cache")
    await artifacts.close()


async def test_closing_leaves_only_the_content(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    artifacts = artifact_store.ArtifactStore(str(tmp_path / "cache"), 100 * MIB, MIB, settle_s=0.0)
    held = await artifacts.fetch(str(make_file("a.onnx")), "")
    artifacts.hold(held)
    await artifacts.close()
    assert files_below(tmp_path / "cache") == [Path(held.path)]
    assert list((tmp_path / "cache" / "seats").iterdir()) == []


@pytest.mark.edge
def test_processes_share_a_cache_that_is_always_too_full(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    for number in range(12):
        make_file(f"{number}.bin", os.urandom(5_000))
        make_file(f"folder{number}/w.bin", os.urandom(5_000))
    command = [
        sys.executable,
        "-m",
        "tests.storage.sharing",
        str(tmp_path / "cache"),
        str(tmp_path / "models"),
        "300",
    ]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert list((tmp_path / "cache" / "seats").iterdir()) == []


async def test_a_cache_that_is_removed_meanwhile_is_made_anew(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = str(make_file("a.onnx"))
    artifacts.hold(await artifacts.fetch(path, ""))
    for _ in range(2):
        # The store may write while the folder is being removed.
        while (tmp_path / "cache").exists():
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        sound = await artifacts.fetch(path, "", verifies=True)
        assert bytes_of(sound) == b"model"
        assert bytes_of(await artifacts.fetch(str(make_file("b.onnx", b"other")), "")) == b"other"
        artifacts.hold(sound)
        artifacts.release(sound)
    assert list((tmp_path / "cache" / "seats").glob("*/held/*"))


async def test_nobody_else_may_read_the_cache(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    (tmp_path / "cache").mkdir(mode=0o755)
    fetched = await artifacts.fetch(str(make_file("a.onnx")), "")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    [(_, stat)] = content.files(Path(fetched.path))
    assert stat.st_mode & 0o777 == 0o400


async def test_a_load_waits_until_the_file_is_written(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx", b"old")
    with path.open("wb") as writing:
        writing.write(b"ha")
        writing.flush()
        fetching = tasks.spawn(artifacts.fetch(str(path), ""), "fetch", is_awaited=True)
        done, _ = await asyncio.wait([fetching], timeout=0.6)
        assert not done
        writing.write(b"lf and half")
    assert bytes_of(await fetching) == b"half and half"


async def test_a_declared_content_is_a_hit_without_a_look_at_its_source(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx", b"old", is_old=False)
    uri = model_uri.stamped(str(path), content.stamp(path).text)
    first = await artifacts.fetch(uri, "")
    path.unlink()
    assert await artifacts.fetch(uri, "") is first
    assert await artifacts.fetch(uri, "", verifies=True) is first


async def test_what_files_were_before_can_be_fetched_after_they_were_spoiled(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    uris = []
    for content_ in (b"good", b"half"):
        path = make_file("a.onnx", content_)
        uris.append(model_uri.stamped(str(path), content.stamp(path).text))
        await artifacts.fetch(uris[-1], "")
    earlier = await artifacts.find_earlier(uris[1])
    assert earlier == uris[0]
    assert bytes_of(await artifacts.fetch(earlier, "")) == b"good"
    assert bytes_of(await artifacts.fetch(uris[1], "")) == b"half"
    for unknown in (str(path), "https://host/a", uris[1].replace("a.onnx", "b.onnx")):
        assert await artifacts.find_earlier(unknown) == ""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from meshserve import errors, tasks
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired, model
from meshserve.storage import artifact_store, repository_watch
from tests import support

pytestmark = pytest.mark.edge


class Follower:
    """Keeps the newest scan of a repository."""

    def __init__(
        self,
        repository: desired.RepositorySettings,
        watch: Any = watchfiles.watch,
        known: tuple[model.ModelSpec, ...] = (),
    ) -> None:
        self.repository = repository
        self.watch = repository_watch.FolderWatch(watch)
        self.scans: list[cluster_control.RepositoryScan] = []
        self._task = tasks.spawn(self._follow(known), "follow", is_awaited=True)

    async def _follow(self, known: tuple[model.ModelSpec, ...]) -> None:
        scans = self.watch.scans(self.repository, 60.0, known)
        async with contextlib.aclosing(scans):  # type: ignore[type-var]  # it is a generator
            async for scan in scans:
                self.scans.append(scan)

    def uris(self) -> dict[str, str]:
        return {str(spec.id): spec.uri for spec in self.scans[-1].specs} if self.scans else {}

    async def until(self, *ids: str) -> dict[str, str]:
        await support.wait_until_async(
            lambda: self.scans and set(self.uris()) == set(ids), what=f"{ids} in the repository"
        )
        return self.uris()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def end(self) -> BaseException | None:
        await asyncio.wait([self._task])
        return self._task.exception()


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
async def follower(folder: Path) -> AsyncIterator[Any]:
    follower = Follower(desired.RepositorySettings(str(folder), pool="small", trust=True))
    yield follower
    await follower.stop()


async def test_models_come_change_and_go(
    folder: Path,
    follower: Any,
    make_file: Callable[..., Path],
    artifacts: artifact_store.ArtifactStore,
) -> None:
    await follower.until()
    path = make_file("a.onnx", b"one")
    before = await follower.until("a:1")
    assert (await artifacts.fetch(before["a:1"], "")).size_bytes == 3
    make_file("b/3/model.onnx", b"b")
    await follower.until("a:1", "b:3")
    make_file("a.onnx", b"newer")
    await support.wait_until_async(
        lambda: follower.uris()["a:1"] != before["a:1"], what="a new stamp"
    )
    assert (await artifacts.fetch(follower.uris()["a:1"], "")).size_bytes == 5
    path.unlink()
    await follower.until("b:3")
    shutil.rmtree(folder / "b")
    await follower.until()


async def test_specs_say_where_they_come_from(
    folder: Path, follower: Any, make_file: Callable[..., Path]
) -> None:
    make_file("a.onnx")
    await follower.until("a:1")
    spec = follower.scans[-1].specs[0]
    assert (spec.pool, spec.trust, str(spec.origin), spec.load_timeout_s) == (
        "small",
        True,
        f"repository:{folder}",
        60.0,
    )


async def test_a_file_appears_once_it_is_written(folder: Path, follower: Any) -> None:
    await follower.until()
    with (folder / "a.onnx").open("wb") as stream:
        for _ in range(20):
            stream.write(b"x")
            stream.flush()
            await asyncio.sleep(0.1)
            assert follower.uris() == {}
    await follower.until("a:1")
    assert len(follower.scans) == 2


class Counting:
    """Tells of changes as watchfiles does, and counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, *folders: Any, **how: Any) -> Iterator[Any]:
        for changes in watchfiles.watch(*folders, **how):
            self.times += 1
            yield changes


def report_nothing(*_: object, **__: object) -> None:
    raise OSError(28, "inotify watch limit reached")


async def test_an_unchanged_repository_is_yielded_once(
    folder: Path, make_file: Callable[..., Path]
) -> None:
    make_file("a.onnx")
    watch = Counting()
    follower = Follower(desired.RepositorySettings(str(folder)), watch)
    await follower.until("a:1")
    scans, times = len(follower.scans), watch.times
    await support.wait_until_async(lambda: watch.times > times + 7, what="more looks")
    assert len(follower.scans) == scans
    await follower.stop()


async def test_changes_are_seen_without_reports_of_the_system(
    folder: Path, make_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    follower = Follower(desired.RepositorySettings(str(folder)), report_nothing)
    await follower.until()
    make_file("a.onnx")
    await follower.until("a:1")
    assert "watch limit" in caplog.text
    await follower.stop()


async def test_an_unwatched_repository_is_yielded_once(
    folder: Path, make_file: Callable[..., Path]
) -> None:
    make_file("a.onnx")
    scans = [
        scan
        async for scan in repository_watch.FolderWatch().scans(
            desired.RepositorySettings(str(folder), watch=False), 60.0
        )
    ]
    assert [[str(spec.id) for spec in scan.specs] for scan in scans] == [["a:1"]]


def move_away(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


async def test_a_folder_that_goes_away_withdraws_nothing(
    folder: Path, follower: Any, make_file: Callable[..., Path]
) -> None:
    make_file("a.onnx")
    await follower.until("a:1")
    move_away(folder)
    assert isinstance(await follower.end(), errors.LoadFailed)
    assert [str(spec.id) for spec in follower.scans[-1].specs] == ["a:1"]


@pytest.mark.parametrize("place", ["s3://bucket/models", "/nowhere/at/all"])
async def test_a_repository_elsewhere_is_refused(place: Any) -> None:
    with pytest.raises(errors.LoadFailed, match=place):
        await anext(repository_watch.FolderWatch().scans(desired.RepositorySettings(place), 60.0))


async def test_a_model_that_is_looked_at_is_there_at_once(
    follower: Follower, make_file: Callable[..., Path]
) -> None:
    await follower.until()
    make_file("a/1/model.onnx")
    make_file("b.onnx")
    await follower.watch.look_at(follower.repository, "a")
    assert set(follower.uris()) == {"a:1"}
    make_file("a/2/model.onnx")
    make_file("a/config.pbtxt", b"version_policy { specific { versions: 2 } }")
    await follower.watch.look_at(follower.repository, "a")
    assert {id_ for id_ in follower.uris() if id_ != "b:1"} == {"a:2"}


async def test_a_look_at_a_broken_description_says_what_is_wrong(
    follower: Follower, make_file: Callable[..., Path]
) -> None:
    make_file("a/1/model.onnx")
    await follower.until("a:1")
    make_file("a/config.pbtxt", b"max_batch_size: {")
    await follower.watch.look_at(follower.repository, "a")
    assert set(follower.uris()) == {"a:1"}
    assert "line 1" in follower.scans[-1].broken["a"]


async def test_a_look_ends_with_the_watch(folder: Path, follower: Follower) -> None:
    await follower.until()
    shutil.rmtree(folder)
    await asyncio.wait_for(follower.watch.look_at(follower.repository, "a"), 10)
    assert isinstance(await follower.end(), errors.LoadFailed)
    await follower.watch.look_at(follower.repository, "a")


@pytest.mark.parametrize("is_watched", [True, False])
async def test_a_typo_at_the_first_scan_withdraws_nothing_that_is_known(
    folder: Path, make_file: Callable[..., Path], is_watched: bool
) -> None:
    make_file("a/1/model.onnx")
    make_file("c/1/model.onnx")
    repository = desired.RepositorySettings(str(folder), watch=is_watched)
    first = Follower(dataclasses.replace(repository, watch=False))
    assert await first.end() is None
    known = first.scans[-1].specs
    make_file("a/config.pbtxt", b"max_batch_size: {")
    shutil.rmtree(folder / "c")
    again = Follower(repository, known=known)
    assert await again.until("a:1") == {"a:1": first.uris()["a:1"]}
    await support.wait_until_async(lambda: again.scans[-1].problems, what="the problem")
    assert "line 1" in again.scans[-1].problems[0]
    assert all(known[0] in scan.specs for scan in again.scans)
    await again.stop()


async def test_a_folder_is_read_as_another_configuration_declares_it(
    follower: Follower, make_file: Callable[..., Path]
) -> None:
    for version in ("1", "2"):
        make_file(f"a/{version}/model.onnx")
    make_file("a/config.pbtxt", b"version_policy { specific { versions: 1 } }")
    await follower.until("a:1")
    (spec,) = follower.scans[-1].specs

    async def as_declared(text: str) -> list[str]:
        anew = await follower.watch.as_declared(follower.repository, spec, text)
        return [str(spec.id) for spec in anew]

    assert await as_declared("{}") == ["a:1", "a:2"]
    assert await as_declared('{"version_policy": {"latest": {"num_versions": 1}}}') == ["a:2"]
    with pytest.raises(errors.InvalidRequest, match="no model configuration"):
        await as_declared('{"max_batch_size": "many"}')


async def test_files_that_come_back_at_once_were_never_away(
    folder: Path, follower: Follower, make_file: Callable[..., Path]
) -> None:
    path = make_file("a/1/model.onnx")
    single = make_file("b.onnx")
    before = await follower.until("a:1", "b:1")
    for _ in range(3):
        shutil.rmtree(folder / "a")
        single.unlink()
        await asyncio.sleep(0.3)
        make_file("a/1/model.onnx", b"newer")
        make_file("b.onnx", b"newer")
    await support.wait_until_async(
        lambda: not before.items() & follower.uris().items(), what="the new files"
    )
    first = next(n for n, scan in enumerate(follower.scans) if len(scan.specs) == 2)
    assert all(len(scan.specs) == 2 for scan in follower.scans[first:])
    path.unlink()
    await follower.until("b:1")


async def test_a_version_that_comes_for_another_leaves_no_gap(
    folder: Path, follower: Follower, make_file: Callable[..., Path]
) -> None:
    make_file("a/1/model.onnx")
    await follower.until("a:1")
    shutil.rmtree(folder / "a" / "1")
    await asyncio.sleep(0.3)
    make_file("a/2/model.onnx")
    await follower.until("a:2")
    assert all(scan.specs for scan in follower.scans[-3:])

"""What operators do to a repository: rsync, git, links, wrong clocks, policies, all under requests.

Each model of one repository is changed in a way of its own, all at the same time. An answer with a
factor that was never whole in the repository is a wrong one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import numpy as np
import pytest

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests import support
from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(300)]

PER_S = 8
"""Requests a second for each model."""
NOTICED_S = 8.0
"""Longer than it takes to notice a change of a repository, to settle, and to load it."""
POLICY = "version_policy {{ {} }}"


@dataclass
class Subject:
    """One model in the repository, and what it has answered since the traffic began."""

    name: str
    folder: Path
    spare: Path
    factors: set[float] = field(default_factory=set)
    last: float = 0.0
    answered: int = 0
    faults: list[str] = field(default_factory=list)

    async def ask(self, stub: rpc.GRPCInferenceServiceStub) -> None:
        asked = pb.ModelInferRequest(model_name=self.name)
        asked.inputs.add(name="x", datatype="FP32", shape=traffic.X.shape)
        asked.raw_input_contents.append(traffic.X.tobytes())
        try:
            answer = await stub.ModelInfer(asked, timeout=30)
        except grpc.aio.AioRpcError as error:
            self.faults.append(f"{error.code().name}: {error.details()}")
            return
        values = np.frombuffer(answer.raw_output_contents[0], np.float32)
        self.last = float(values[0] / traffic.X.ravel()[0])
        self.factors.add(self.last)
        self.answered += 1

    def path(self, version: int | str) -> Path:
        return self.folder / str(version) / "model.onnx"

    def write(self, version: int | str, factor: int) -> None:
        traffic.write_model(self.path(version), factor)

    def content(self, factor: int) -> bytes:
        return Path(traffic.write_model(self.spare / f"{factor}.onnx", factor)).read_bytes()

    def configure(self, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.pbtxt").write_text(text)

    async def until(self, factor: float) -> None:
        await support.wait_until_async(
            lambda: self.last == factor, 30, f"{self.name} answers with {factor}"
        )

    async def stays(self, factor: float) -> None:
        await asyncio.sleep(NOTICED_S)
        assert self.last == factor, f"{self.name} answers with {self.last}, not {factor}"


Change = Callable[[Subject], Awaitable[None]]


async def write_in_pieces(path: Path, content: bytes, pause_s: float = 1.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb", buffering=0) as stream:
        for start in range(0, len(content), len(content) // 3 + 1):
            stream.write(content[start : start + len(content) // 3 + 1])
            await asyncio.sleep(pause_s)


def swap_link(link: Path, target: Path) -> None:
    """Point a link elsewhere by one rename, as deployments do."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.symlink_to(target)
    fresh.replace(link)


# How the models begin, and what is done to them


def one_version(subject: Subject) -> None:
    subject.write(1, 1)


async def rsync(subject: Subject) -> None:
    for factor in (2, 3):
        temporary = subject.path(1).with_name(".model.onnx.Xy12ab")
        await write_in_pieces(temporary, subject.content(factor))
        temporary.replace(subject.path(1))
        await subject.until(factor)


async def copied_under_another_name(subject: Subject) -> None:
    part = subject.path(2).with_name("model.onnx.filepart")
    await write_in_pieces(part, subject.content(2))
    part.rename(subject.path(2))
    await subject.until(2)


async def git_checkout(subject: Subject) -> None:
    for factor in (2, 3):
        subject.path(1).unlink()
        (subject.folder / "config.pbtxt").unlink(missing_ok=True)
        await asyncio.sleep(0.05)
        subject.configure(f"max_batch_size: {factor}")
        subject.write(1, factor)
        await subject.until(factor)


async def equal_times(subject: Subject) -> None:
    before = subject.path(1).stat()
    subject.path(1).write_bytes(subject.content(2))
    os.utime(subject.path(1), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert subject.path(1).stat().st_size == before.st_size
    await subject.until(2)


def linked(subject: Subject) -> None:
    for factor in (1, 2):
        traffic.write_model(subject.spare / f"r{factor}" / "1" / "model.onnx", factor)
    subject.folder.symlink_to(subject.spare / "r1")


async def folder_swapped(subject: Subject) -> None:
    swap_link(subject.folder, subject.spare / "r2")
    await subject.until(2)


def version_linked(subject: Subject) -> None:
    for factor in (1, 2):
        traffic.write_model(subject.spare / f"r{factor}" / "model.onnx", factor)
    subject.folder.mkdir(parents=True)
    (subject.folder / "1").symlink_to(subject.spare / "r1")


async def version_swapped(subject: Subject) -> None:
    swap_link(subject.folder / "1", subject.spare / "r2")
    await subject.until(2)


def two_versions(subject: Subject) -> None:
    subject.write(1, 1)
    subject.write(2, 2)


async def newest_removed_and_written_anew(subject: Subject) -> None:
    await subject.until(2)
    shutil.rmtree(subject.folder / "2")
    await subject.until(1)
    subject.write(2, 5)
    await subject.until(5)


async def clock_ahead(subject: Subject) -> None:
    for version, ahead_s in ((2, 5), (3, 3600), (4, -86400)):
        subject.write(version, version)
        at_s = time.time() + ahead_s
        os.utime(subject.path(version), (at_s, at_s))
        os.utime(subject.path(version).parent, (at_s, at_s))
        await subject.until(version)


async def configuration_alone(subject: Subject) -> None:
    for rows in (2, 8):
        subject.configure(f"max_batch_size: {rows}")
        await subject.stays(1)


async def two_at_once(subject: Subject) -> None:
    subject.write(3, 3)
    subject.write(2, 2)
    await subject.until(3)


async def all_broken(subject: Subject) -> None:
    subject.path(1).write_bytes(b"junk")
    subject.path(2).parent.mkdir()
    subject.path(2).write_bytes(b"more junk")
    await subject.stays(1)
    subject.write(2, 4)
    await subject.until(4)


def third_version(subject: Subject) -> None:
    subject.write(3, 3)


async def older_one_added(subject: Subject) -> None:
    subject.write(2, 2)
    await subject.stays(3)


def latest_of(count: int) -> Callable[[Subject], None]:
    def begin(subject: Subject) -> None:
        subject.configure(POLICY.format(f"latest {{ num_versions: {count} }}"))
        subject.write(1, 1)

    return begin


async def latest_is_broken(subject: Subject) -> None:
    subject.path(2).parent.mkdir()
    subject.path(2).write_bytes(b"junk")
    await subject.stays(1)
    subject.path(3).parent.mkdir()
    subject.path(3).write_bytes(b"junk")
    await subject.stays(1)
    subject.write(4, 4)
    await subject.until(4)


def specific(subject: Subject) -> None:
    subject.configure(POLICY.format("specific { versions: 1 }"))
    subject.write(1, 1)


async def policy_changed(subject: Subject) -> None:
    subject.write(2, 2)
    await subject.stays(1)
    subject.configure(POLICY.format("specific { versions: 2 }"))
    await subject.until(2)


async def renamed(subject: Subject) -> None:
    (subject.folder / "1").rename(subject.folder / "2")
    await subject.stays(1)


async def version_moved_aside(subject: Subject) -> None:
    (subject.folder / "1").rename(subject.folder / "1.old")
    subject.write(1, 6)
    await subject.until(6)


CHANGES: dict[str, tuple[Callable[[Subject], None], Change, set[float]]] = {
    "rsync": (one_version, rsync, {1, 2, 3}),
    "filepart": (one_version, copied_under_another_name, {1, 2}),
    "git": (one_version, git_checkout, {1, 2, 3}),
    "times": (one_version, equal_times, {1, 2}),
    "link": (linked, folder_swapped, {1, 2}),
    "version-link": (version_linked, version_swapped, {1, 2}),
    "removed": (two_versions, newest_removed_and_written_anew, {1, 2, 5}),
    "ahead": (one_version, clock_ahead, {1, 2, 3, 4}),
    "config": (one_version, configuration_alone, {1}),
    "two": (one_version, two_at_once, {1, 2, 3}),
    "broken": (one_version, all_broken, {1, 4}),
    "older": (third_version, older_one_added, {3}),
    "latest-1": (latest_of(1), latest_is_broken, {1, 4}),
    "latest-2": (latest_of(2), latest_is_broken, {1, 4}),
    "specific": (specific, policy_changed, {1, 2}),
    "renamed": (one_version, renamed, {1}),
    "aside": (one_version, version_moved_aside, {1, 6}),
}


async def keep_asking(stub: rpc.GRPCInferenceServiceStub, subject: Subject) -> None:
    sent: set[asyncio.Task[None]] = set()
    try:
        while True:
            task = tasks.spawn(subject.ask(stub), subject.name, is_awaited=True)
            sent.add(task)
            task.add_done_callback(sent.discard)
            await asyncio.sleep(1 / PER_S)
    finally:
        await asyncio.gather(*sent)


async def test_no_change_of_a_repository_fails_or_falsifies_a_request(tmp_path: Path) -> None:
    subjects = {
        name: Subject(name, tmp_path / "repository" / name, tmp_path / "spare" / name)
        for name in CHANGES
    }
    (tmp_path / "repository").mkdir()
    for name, (begin, _, _) in CHANGES.items():
        subjects[name].spare.mkdir(parents=True)
        begin(subjects[name])
    document = {
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "repositories": [{"path": str(tmp_path / "repository")}],
    }
    with running.mesh(document) as mesh:
        await support.wait_until_async(
            lambda: all(
                mesh.http.get(f"/v2/models/{name}/ready").status_code == 200 for name in CHANGES
            ),
            20,
            "all are served",
        )
        async with grpc.aio.insecure_channel(mesh.listen) as channel:
            stub = rpc.GRPCInferenceServiceStub(channel)
            asking = [
                tasks.spawn(keep_asking(stub, subject), subject.name, is_awaited=True)
                for subject in subjects.values()
            ]
            await support.wait_until_async(
                lambda: all(subject.answered for subject in subjects.values()), 30, "all answer"
            )
            changed = await asyncio.gather(
                *(change(subjects[name]) for name, (_, change, _) in CHANGES.items()),
                return_exceptions=True,
            )
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    assert [error for error in changed if error is not None] == []
    assert {name: s.faults[:3] for name, s in subjects.items() if s.faults} == {}
    wrong = {name: subjects[name].factors - CHANGES[name][2] for name in CHANGES}
    assert {name: factors for name, factors in wrong.items() if factors} == {}

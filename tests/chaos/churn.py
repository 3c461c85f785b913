"""Management and files at work: replacements, registrations, deletions, unloads, damage."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

from tests.chaos import oracle, processes, world

TAKEN_S = 30.0
"""How long a worker may answer by the content before, until it has loaded the new one."""
SEEN_S = 120.0
"""The same for a repository, whose change must be noticed by a controller that may be away."""


async def put(arena: world.World, subject: oracle.Subject, grace_s: float) -> None:
    factor = arena.factor()
    subject.begin(factor)
    body = {"uri": str(arena.fresh(factor))}
    if await arena.manage("PUT", f"models/{subject.name}", body, "PUT", 200):
        subject.settle(grace_s)


async def replace(arena: world.World, chance: random.Random) -> None:
    """Register another content under a name that is served."""
    subject = chance.choice(arena.subjects[world.TURNING])
    async with arena.only(subject):
        arena.judge.allow("replace", processes.FELT_S)
        await put(arena, subject, TAKEN_S)


async def register_and_delete(arena: world.World, chance: random.Random) -> None:
    """Register a model that is not there and delete it again: both hold at once."""
    subject = chance.choice(arena.subjects[world.FLEETING])
    async with arena.only(subject):
        arena.judge.allow("register and delete", processes.FELT_S)
        await put(arena, subject, 0)
        await asyncio.sleep(chance.uniform(0, 4))
        subject.begin(oracle.ABSENT)
        # Asked again after an answer that did not come, it may be gone already.
        if await arena.manage("DELETE", f"models/{subject.name}", None, "DELETE", 200, 404):
            subject.settle()


async def unload(arena: world.World, chance: random.Random) -> None:
    """Unload models that are asked for: they load again."""
    arena.judge.allow("unload", processes.FELT_S)
    groups = (world.STILL, world.BIG, world.CLASSES, world.ISOLATED)
    for subject in chance.sample([item for group in groups for item in arena.subjects[group]], 6):
        await arena.manage("POST", f"models/{subject.name}/unload", None, "unload", 200)


async def break_registration(arena: world.World, chance: random.Random) -> None:
    """Replace a model by files that can't be loaded, then by good ones: the old one answers."""
    subject = chance.choice(arena.subjects[world.TURNING])
    async with arena.only(subject):
        broken = arena.fresh(arena.factor())
        content = broken.read_bytes()
        broken.write_bytes(chance.choice([b"junk", content[: len(content) // 2], b""]))
        body = {"uri": str(broken)}
        # A worker that starts meanwhile has no content before to fall back to.
        unloadable = arena.judge.allow(
            "broken registration", world.BACK_S, frozenset({"424"}), subject.name
        )
        # Files that are refused at once change nothing; others are told by `reason`.
        await arena.manage("PUT", f"models/{subject.name}", body, "PUT broken", 200, 400, 424)
        await asyncio.sleep(chance.uniform(0, 3))
        await put(arena, subject, TAKEN_S)
        unloadable.end_s = arena.judge.clock() + TAKEN_S


async def new_version(arena: world.World, chance: random.Random) -> None:
    """Write the next version into the repository in pieces, as a slow copy does."""
    subject = chance.choice(arena.subjects[world.FILED])
    async with arena.only(subject):
        arena.judge.allow("new version", processes.FELT_S)
        newest = max(int(path.name) for path in (arena.repository / subject.name).glob("[0-9]*"))
        factor = arena.factor()
        content = arena.fresh(factor).read_bytes()
        subject.begin(factor)
        await write_in_pieces(arena.filed(subject, newest + 1), content, chance)
        subject.settle(SEEN_S)
        shutil.rmtree(arena.filed(subject, newest - 1).parent, ignore_errors=True)


async def overwrite(arena: world.World, chance: random.Random) -> None:
    """Write other bytes over the newest version: in place, by a rename, or by a new folder."""
    subject = chance.choice(arena.subjects[world.FILED])
    async with arena.only(subject):
        arena.judge.allow("overwrite", processes.FELT_S)
        newest = max(int(path.name) for path in (arena.repository / subject.name).glob("[0-9]*"))
        path, factor = arena.filed(subject, newest), arena.factor()
        source = arena.fresh(factor)
        subject.begin(factor)
        way = chance.choice(["in place", "rename", "remove first"])
        if way == "in place":
            await write_in_pieces(path, source.read_bytes(), chance)
        elif way == "rename":
            source.rename(path)
        else:
            path.unlink()
            source.rename(path)
        subject.settle(SEEN_S)


async def break_version(arena: world.World, chance: random.Random) -> None:
    """Put a half-written or mistyped version into the repository for a while."""
    subject = chance.choice(arena.subjects[world.FILED])
    async with arena.only(subject):
        arena.judge.allow("broken version", processes.FELT_S)
        folder = arena.repository / subject.name
        newest = max(int(path.name) for path in folder.glob("[0-9]*"))
        content = arena.filed(subject, newest).read_bytes()
        broken = arena.filed(subject, newest + 1)
        broken.parent.mkdir()
        broken.write_bytes(chance.choice([b"junk", content[: len(content) // 2], b""]))
        description = folder / "config.pbtxt"
        if chance.random() < 0.5:
            description.write_text("max_batch_size: {")
        await asyncio.sleep(chance.uniform(2, 8))
        description.unlink(missing_ok=True)
        shutil.rmtree(broken.parent)


async def write_in_pieces(path: Path, content: bytes, chance: random.Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = len(content) // 3 + 1
    with path.open("wb", buffering=0) as stream:
        for start in range(0, len(content), size):
            stream.write(content[start : start + size])
            await asyncio.sleep(chance.uniform(0, 1))


async def spoil_cache(arena: world.World, chance: random.Random) -> None:
    """Change, cut or empty files in the cache: they are fetched again, and no answer is wrong."""
    arena.judge.allow("spoiled cache", processes.FELT_S)
    # Unlike `rglob`, it goes on where a folder is removed meanwhile.
    walked = os.walk(arena.mesh.home / "cache" / "objects")
    cached = sorted(
        Path(folder, file) for folder, _, files in walked for file in files if file[-5:] == ".onnx"
    )
    for path in chance.sample(cached, min(len(cached), 5)):
        try:
            content = bytearray(path.read_bytes())
            path.chmod(0o600)
            path.write_bytes(_spoiled(content, chance))
        except FileNotFoundError:
            continue
        name = path.stem
        if any(item.name == name for item in arena.subjects[world.STILL]):
            await arena.manage("POST", f"models/{name}/unload", None, "unload", 200)


def _spoiled(content: bytearray, chance: random.Random) -> bytes:
    way = chance.choice(["flip", "cut", "empty"])
    if way == "flip" and content:
        for _ in range(8):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        return bytes(content)
    return bytes(content[: len(content) // 2]) if way == "cut" else b""


async def remove_cache(arena: world.World, _: random.Random) -> None:
    """Remove the whole cache folder: it is filled again."""
    arena.judge.allow("removed cache", processes.FELT_S)
    await asyncio.to_thread(shutil.rmtree, arena.mesh.home / "cache", ignore_errors=True)

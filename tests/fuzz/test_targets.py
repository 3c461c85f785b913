"""Changes of good inputs for every target, and all that fuzzing once found."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzzing
from tests.fuzz import seeds, targets

TARGET_S = 5.0
TIMEOUT_S = 240.0
CHANGES_MAX = 4
INTERESTING = (b"\x00", b"\xff", b"-1", b"1e400", b"null", b'"', b"[", b"{", b"\x80", b"9" * 25)
SEED = os.environ.get("FUZZ_SEED", "1")
"""The same changes each time: a commit must not fail for what another day's would have found."""

Runs = dict[str, concurrent.futures.Future[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def changed(content: bytes, chance: random.Random) -> bytes:
    """Return the content with a few parts replaced, doubled, inserted or cut out."""
    data = bytearray(content)
    for _ in range(chance.randint(1, CHANGES_MAX)):
        begin = chance.randrange(len(data) + 1)
        end = min(len(data), begin + chance.randint(0, 8))
        match chance.randrange(4):
            case 0:
                data[begin:end] = chance.choice(INTERESTING)
            case 1:
                data[begin:begin] = data[begin:end]
            case 2:
                data[begin:end] = b""
            case _ if begin < len(data):
                data[begin] ^= 1 << chance.randrange(8)
    return bytes(data)


def try_changes(name: str, good: list[bytes], note_path: Path) -> None:
    """Feed the target with good contents, the corpus and changes of both."""
    target = targets.TARGETS[name]
    contents = [*good, *fuzzing.kept(name)]
    for content in contents:
        target(content)
    # The same changes in the same order for one seed, as many as the time allows.
    chance = random.Random(f"{name} {SEED}")
    ends_s = time.monotonic() + TARGET_S
    # Before the call: a crash of the process leaves nothing else behind.
    with note_path.open("wb", buffering=0) as note:
        while time.monotonic() < ends_s:
            content = changed(chance.choice(contents), chance)
            note.seek(0)
            note.truncate()
            note.write(content)
            target(content)


def ended(name: str, good: list[bytes], note_path: Path) -> str:
    """Try a target in a process, as a library may end it; return what is wrong, or ""."""
    note_path.touch()
    process = multiprocessing.get_context("spawn").Process(
        target=try_changes, args=(name, good, note_path)
    )
    process.start()
    process.join(TIMEOUT_S)
    if process.exitcode == 0:
        return ""
    process.kill()
    said = f"exit code {process.exitcode}, FUZZ_SEED={SEED}"
    return f"{said}, by {note_path.read_bytes()!r}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Begin all targets, as many at once as there are processors."""
    folder = tmp_path_factory.mktemp("notes")
    good = seeds.by_target()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            name: pool.submit(ended, name, good[name], folder / name) for name in targets.TARGETS
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_nothing_but_a_refusal_comes_of_any_bytes(name: str, runs: Runs) -> None:
    assert runs[name].result() == ""

from __future__ import annotations

import multiprocessing
import random
import time

import pytest

from tests.fuzz import __main__ as fuzzing
from tests.fuzz import seeds, targets

TARGET_S = 4.0
TIMEOUT_S = 240.0
CHANGES_MAX = 4
INTERESTING = (b"\x00", b"\xff", b"-1", b"1e400", b"null", b'"', b"[", b"{", b"\x80", b"9" * 25)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def good() -> dict[str, list[bytes]]:
    return seeds.by_target()


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


def try_changes(name: str, good: dict[str, list[bytes]]) -> None:
    """Feed the target with good contents, the corpus and changes of both."""
    target = targets.TARGETS[name]
    kept = [file.read_bytes() for file in sorted((fuzzing.CORPUS / name).glob("*"))]
    contents = [*good[name], *kept]
    for content in contents:
        target(content)
    # The same changes in the same order each time, as many as the time allows.
    chance = random.Random(name)
    ends_s = time.monotonic() + TARGET_S
    while time.monotonic() < ends_s:
        content = changed(chance.choice(contents), chance)
        try:
            target(content)
        except Exception as error:
            error.add_note(f"{name}: {content!r}")
            raise


@pytest.mark.parametrize("name", targets.TARGETS)
def test_nothing_but_a_refusal_comes_of_any_bytes(name: str, good: dict[str, list[bytes]]) -> None:
    # A library that ends its process must end no other test.
    process = multiprocessing.get_context("spawn").Process(target=try_changes, args=(name, good))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == 0, f"{name} ended with {process.exitcode}"

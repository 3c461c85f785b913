"""Loads many broken copies of one model: run as a process that a crash may end.

    python -m tests.runtimes.broken RUNTIME FILE SEED COUNT FIELDS

Cuts the file at COUNT lengths, changes bytes in COUNT copies, and makes COUNT files of random
bytes. Prints the numbers of refused and loaded ones; anything but LoadFailed ends it with an error.
"""

from __future__ import annotations

import ast
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meshserve import errors
from tests.runtimes import contract


def copies(content: bytes, count: int, chance: random.Random) -> Iterator[bytes]:
    for place in range(count):
        yield content[: len(content) * place // count]
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 3, 20))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        yield bytes(changed)
    for _ in range(count):
        yield chance.randbytes(chance.choice((1, 10, 100, 5000)))


def is_refused(path: Path, fields: dict[str, Any]) -> bool:
    try:
        loaded = contract.load(path, **fields)
    except errors.LoadFailed as error:
        return len(error.message.splitlines()) == 1
    if loaded.probe is not None:
        loaded.predict(loaded.probe, ())
    loaded.close()
    return False


def main(runtime: str, source: str, seed: str, count: str, fields: str) -> None:
    original = Path(source)
    refused = []
    for number, content in enumerate(
        copies(original.read_bytes(), int(count), random.Random(int(seed)))
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{number}{original.suffix}")
            path.write_bytes(content)
            refused.append(is_refused(path, {"runtime": runtime, **ast.literal_eval(fields)}))
    print(sum(refused), len(refused) - sum(refused))  # noqa: T201 what its caller reads


if __name__ == "__main__":
    main(*sys.argv[1:])

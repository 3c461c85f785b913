from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import density, families, filling, program

MEMORY_BYTES = 2 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Any]:
    with density.write_family(families.TINY, tmp_path / "family", 12) as place:
        yield place


def test_all_that_fit_are_counted_and_what_they_take_is_measured(folder: Any) -> None:
    filled = asyncio.run(filling.fill(filling.read(folder), MEMORY_BYTES, 30))
    assert (filled.resident, filled.is_full, filled.registered) == (12, False, 30)
    assert 0 < filled.load_ms[0] <= filled.load_ms[1]
    assert filled.mapped_bytes_each == 0
    room = replace(
        filled, private_bytes_each=1000.0, mapped_bytes_each=24.0, process_bytes=1024
    ).room_for(1024 * 11)
    assert room == 10
    assert replace(filled, is_full=True).room_for(10**9) == 12


def test_a_wrong_answer_is_told(folder: Any) -> None:
    given = filling.read(folder)
    wrong = replace(given, answers={3: np.zeros((1, 4), np.float32) - 9})
    with pytest.raises(program.WrongAnswer, match="model-000003"):
        asyncio.run(filling.fill(wrong, MEMORY_BYTES, 12))

from __future__ import annotations

import subprocess
import sys

from meshserve.llm import memory_use

HOLD = "block = bytearray(64 << 20); print(flush=True); input()"


def test_descendants_count() -> None:
    before = memory_use.measure()
    assert before.used_bytes > 0
    assert before.free_bytes > 0
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert memory_use.measure().used_bytes - before.used_bytes > 60 << 20
        child.communicate(b"\n")


def test_it_measures_again_after_a_while() -> None:
    meter = memory_use.MemoryMeter()
    first = meter.use(0.0)
    assert first.used_bytes > 0
    assert meter.use(memory_use.PERIOD_S - 1) is first
    assert meter.use(memory_use.PERIOD_S) is not first

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from meshserve.cluster import allocator_env
from meshserve.worker.models import allocators

HERE = Path(__file__).parent
WAIT_S = 120


@pytest.mark.parametrize("module", ["with_jemalloc.py", "test_process_memory.py"])
def test_it_holds_with_jemalloc(module: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(HERE / module),
    ]
    environment = os.environ | allocator_env.variables("jemalloc")
    done = subprocess.run(
        command,
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert not done.returncode, done.stdout + done.stderr


def test_glibc_is_recognised() -> None:
    assert not allocator_env.variables("system")
    assert isinstance(allocators.current(), allocators.Glibc)


class Uncounted:
    """A jemalloc that was built without its counts: it does not even know their names."""

    @staticmethod
    def mallctl(*_: Any) -> int:
        return 2


def test_a_jemalloc_without_counts_is_unknown() -> None:
    assert not allocators.Jemalloc(cast("ctypes.CDLL", Uncounted)).counts


def test_an_unknown_allocator_counts_nothing() -> None:
    unknown = allocators.UnknownAllocator()
    unknown.tune()
    unknown.tune_loader()
    unknown.trim()
    assert (unknown.in_use_bytes(), unknown.own_bytes(), unknown.free_bytes()) == (0, 0, 0)

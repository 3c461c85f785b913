from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshserve.storage import file_lock

HOLD = """
import os, sys
from meshserve.storage import file_lock
descriptor = os.open(sys.argv[1], os.O_RDWR)
file_lock.take(descriptor)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "lock").touch()
    return tmp_path / "lock"


def begin_holder(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_the_kernel_tells_who_holds_a_lock(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    assert file_lock.find_holder(descriptor) is None
    with begin_holder(path) as process:
        assert file_lock.find_holder(descriptor) == process.pid
        # Asking takes no lock, not even for a moment.
        assert file_lock.find_holder(descriptor) == process.pid
        process.kill()
    assert file_lock.find_holder(descriptor) is None
    os.close(descriptor)


def test_a_held_lock_is_refused(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    with begin_holder(path) as process:
        with pytest.raises(OSError, match="unavailable"):
            file_lock.take(descriptor)
        process.kill()
    file_lock.take(descriptor)
    os.close(descriptor)


def test_closing_any_descriptor_of_the_file_ends_the_lock(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    file_lock.take(descriptor)
    child = "import os, sys; from meshserve.storage import file_lock as f; print(f.find_holder(0))"
    with path.open() as opened:
        # Closing `opened` ends the lock of this process: that is why its holder opens it once.
        shown = subprocess.run(
            [sys.executable, "-c", child], stdin=opened, stdout=subprocess.PIPE, check=True
        )
        assert int(shown.stdout) == os.getpid()
    shown = subprocess.run(
        [sys.executable, "-c", child], stdin=descriptor, stdout=subprocess.PIPE, check=True
    )
    assert shown.stdout == b"None\n"
    os.close(descriptor)

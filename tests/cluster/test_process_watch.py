from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import pytest

from meshserve import tasks
from meshserve.cluster import process_watch

REGISTER = """
import sys
from meshserve.cluster import process_watch
process_watch.register(sys.argv[1])
print(flush=True)
sys.stdin.read()
"""


async def begin(run_dir: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", REGISTER, str(run_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def test_a_stopped_process_is_killed_and_another_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped, running = await begin(tmp_path), await begin(tmp_path)
    watching = tasks.spawn(process_watch.watch(str(tmp_path)), "watch")
    stopped.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(60):
        assert await stopped.wait() == -signal.SIGKILL
    assert running.returncode is None
    assert f"process {stopped.pid} was stopped" in caplog.text
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    running.kill()
    await running.wait()


def test_a_folder_that_cannot_be_made_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    process_watch.register(str(tmp_path / "file"))
    assert "is not watched" in caplog.text


async def test_the_last_process_of_a_folder_knows_that_it_is_the_last(tmp_path: Path) -> None:
    process_watch.register(str(tmp_path))
    other = await begin(tmp_path)
    assert not process_watch.is_last_to_leave(str(tmp_path))
    other.kill()
    await other.wait()
    assert process_watch.is_last_to_leave(str(tmp_path))

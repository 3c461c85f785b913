"""The program that becomes another one. That Envoy dies so is shown in test_envoy_process.py."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

from meshserve.gateway.envoy import die_with_parent

pytestmark = pytest.mark.edge


async def run(parent_pid: int, *command: str) -> Any:
    program = (sys.executable, "-I", "-S", die_with_parent.__file__, str(parent_pid), *command)
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_program_replaces_the_process() -> None:
    code, output = await run(
        os.getpid(), "/bin/sh", "-c", "echo $1; ulimit -n; exit 3", "sh", "hello"
    )
    assert (code, output.split()[0]) == (3, "hello")


async def test_the_program_may_open_as_many_files_as_the_system_allows() -> None:
    _, output = await run(os.getpid(), "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn")
    soft, hard = output.split()
    assert soft == hard


async def test_no_program_starts_if_the_parent_has_ended() -> None:
    assert await run(1, "/bin/sh", "-c", "echo started") == (0, "")

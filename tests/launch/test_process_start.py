"""What a process of a mesh writes is its user's alone."""

from __future__ import annotations

import os
from pathlib import Path

from meshserve.launch import process_start
from meshserve.logs import log_files


def test_its_log_is_for_its_user_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        process_start.begin_process(log_files.LogPlan(str(tmp_path)), "gateway")
    finally:
        os.umask(mask)
    assert (tmp_path / "gateway.log").stat().st_mode & 0o777 == 0o600

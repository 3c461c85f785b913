from __future__ import annotations

from pathlib import Path

from meshserve.worker.models import process_launcher, process_memory, surroundings
from tests.worker import helpers


def test_a_host_measures_its_own_process_and_starts_real_ones_unless_told(tmp_path: Path) -> None:
    _, meter, make_launcher = surroundings.Surroundings(helpers.FakeStorage(tmp_path))
    assert meter is process_memory.OWN
    assert make_launcher is process_launcher.ProcessLauncher
    assert meter.private_bytes() > 0

"""What is outside of a worker's models: where they come from, and the process that they run in."""

from __future__ import annotations

from typing import NamedTuple

from meshserve.core.interfaces import model_runtime
from meshserve.worker.models import isolated_copies, process_launcher, process_memory


class Surroundings(NamedTuple):
    """A storage, what measures this process, and what starts processes of single models."""

    storage: model_runtime.Storage
    meter: process_memory.ProcessMeter = process_memory.OWN
    make_launcher: isolated_copies.MakeLauncher = process_launcher.ProcessLauncher

"""Where a worker is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """One worker's name and surroundings. `run_dir` is this node's alone and holds its socket; others reach it on `host`."""

    worker_id: str
    run_dir: str
    node: str = "local"
    host: str = "127.0.0.1"

    @property
    def socket_path(self) -> str:
        """The Unix socket that peers on this node use."""
        return str(Path(self.run_dir) / f"{self.worker_id}.sock")

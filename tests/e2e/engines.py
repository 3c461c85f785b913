"""Fake engines that a mesh finds by entry points, like those of another package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from meshserve.core.interfaces import llm_engine
from meshserve.testing import fake_engine

ROOT = Path(__file__).parent.parent.parent
START_S = 1.5


class Forking(fake_engine.FakeEngine):
    """An engine that starts slowly and has a child that must be killed, like vLLM's."""

    def __init__(self) -> None:
        super().__init__(start_s=START_S, step_s=0.02)
        self.child: subprocess.Popen[bytes] | None = None

    async def start(self, order: llm_engine.EngineOrder) -> None:
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # noqa: ASYNC220 - it begins in no time
        await super().start(order)

    async def close(self) -> None:
        await super().close()
        assert self.child is not None
        self.child.kill()


def installed(folder: Path) -> dict[str, str]:
    """Return the environment variables by which a mesh finds the runtime `forking`."""
    about = folder / "forking-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: forking\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[meshserve.engines]\nforking = tests.e2e.engines:Forking\n"
    )
    return {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    }

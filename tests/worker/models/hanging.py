"""A model whose runs end when a file appears, and hosts that look for such runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from meshserve import tasks
from meshserve.worker.models import model_host
from tests import support

HANG = 66.0
"""The first value of a request whose run does not end until the file `end` exists."""

SOURCE = """
    import os, time

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]

        def __init__(self, path, options):
            self.end = options["end"]

        def predict(self, inputs):
            while inputs["x"].flat[0] == 66.0 and not os.path.exists(self.end):
                time.sleep(0.01)
            return {"y": inputs["x"] * 3}
"""


@dataclass(frozen=True)
class RunsEnd:
    """The file that lets runs end."""

    path: Path

    def let(self) -> None:
        self.path.touch()


@contextlib.asynccontextmanager
async def sweeping(host: model_host.ModelHost, end: RunsEnd) -> AsyncIterator[None]:
    """Let the host's tick run; at the end let all runs of `SOURCE` end, and wait for that."""
    ticking = tasks.spawn(host.run(), "tick")
    try:
        yield
    finally:
        end.let()
        await support.wait_until_async(lambda: not host.watch.is_busy)
        ticking.cancel()

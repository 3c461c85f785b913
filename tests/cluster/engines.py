"""Real LLM servers around fake engines that start processes of their own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from meshserve.core.interfaces import llm_engine
from meshserve.llm import llm_server
from meshserve.testing import fake_engine

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class ForkingEngine(fake_engine.FakeEngine):
    """An engine with a child process that ignores SIGTERM."""

    async def start(self, order: Any) -> None:
        await super().start(order)
        command = [sys.executable, "-c", STUBBORN]
        self.child = subprocess.Popen(command)  # noqa: ASYNC220 - it begins in no time


async def make(address: Any, spec: Any, backend: Any) -> Any:
    """Build a server whose engine fails or hangs where the model's URI says so."""
    failure = spec.uri.partition("broken:")[2]
    is_slow = spec.uri == "slow"
    engine = ForkingEngine(start_failure=failure, start_s=600.0 if is_slow else 0.0)
    order = llm_engine.EngineOrder(spec, spec.uri, {}, backend, address.run_dir)
    return llm_server.LlmServer(address, order, lambda: engine)

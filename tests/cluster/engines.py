"""LLM servers for replicas' actors: real ones, around engines that need no vLLM and some processes of their own."""

from __future__ import annotations

import subprocess
import sys

from meshserve.core.interfaces import llm_engine
from meshserve.llm import llm_server
from meshserve.testing import fake_engine

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Forking(fake_engine.FakeEngine):
    """One with a child that ends only when it is killed, and never by itself."""

    async def start(self, order):
        await super().start(order)
        command = [sys.executable, "-c", STUBBORN]
        self.child = subprocess.Popen(command)  # noqa: ASYNC220 - it begins in no time


async def make(address, spec, backend):
    """The engine's manners follow from the model's place."""
    failure = spec.uri.partition("broken:")[2]
    is_slow = spec.uri == "slow"
    engine = Forking(start_failure=failure, start_s=600.0 if is_slow else 0.0)
    order = llm_engine.EngineOrder(spec, spec.uri, {}, backend, address.run_dir)
    return llm_server.LlmServer(address, order, lambda: engine)

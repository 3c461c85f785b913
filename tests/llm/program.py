"""An LLM server in a process of its own, as it is in a mesh; and the other end of it, for tests.

`python -m tests.llm.program ORDER FD` reads calls from its standard input, a line each, and writes
their results to FD, because engines print to the standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
import openai
import psutil

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_server, vllm_engine
from meshserve.testing import engine_suite, fake_engine

ROOT = Path(__file__).parent.parent.parent
NAME, ALIAS, ADAPTER = "tiny", "tiny-too", "tiny-lora"
START_S = 300.0
ANSWER_S = 60.0
STRIKES = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True)
class Model:
    """A model and the engine that is to serve it: `vllm` or `fake`."""

    engine: str
    path: str
    adapters: dict[str, str] = field(default_factory=dict)
    spec: dict[str, object] = field(default_factory=dict)


class Served:
    """The program that serves, seen from outside."""

    def __init__(self, wanted: Model) -> None:
        self.run_dir = tempfile.mkdtemp(prefix="llm")
        self.segments: set[str] = set()
        self._answers, their_end = os.pipe()
        order = json.dumps([wanted.engine, wanted.path, wanted.adapters, wanted.spec, self.run_dir])
        command = [sys.executable, "-m", "tests.llm.program", order, str(their_end)]
        self.socket_path = model.ServerAddress(f"{NAME}/0", self.run_dir).socket_path
        transport = httpx.HTTPTransport(uds=self.socket_path)
        self.client = httpx.Client(base_url="http://llm", transport=transport, timeout=ANSWER_S)
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=[their_end], start_new_session=True
        )
        os.close(their_end)
        assert self.process.stdin is not None
        self.stdin = self.process.stdin
        try:
            self._answer(START_S)
        except BaseException:
            self.end()
            raise
        self.openai = openai.OpenAI(
            base_url="http://llm/v1",
            api_key="none",
            max_retries=0,
            http_client=self.client,
        )
        self.family = [self.process.pid, *(process.pid for process in self.descendants())]
        maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in self.family)
        self.segments = set(re.findall(r"/dev/shm/\S+", maps))

    def call(self, name: str, *args: object) -> Any:
        self.ask(name, *args)
        return self._answer(ANSWER_S)

    def ask(self, name: str, *args: object) -> None:
        self.stdin.write(json.dumps([name, *args]).encode() + b"\n")
        self.stdin.flush()

    def answer(self) -> Any:
        return self._answer(ANSWER_S)

    def _answer(self, timeout_s: float) -> Any:
        answer = b""
        while not answer.endswith(b"\n"):
            assert select.select([self._answers], [], [], timeout_s)[0], "no answer"
            part = os.read(self._answers, 65536)
            assert part, "the program has ended"
            answer += part
        kind, value = json.loads(answer)
        if kind != "value":
            raise getattr(errors, kind)(value)
        return value

    def report(self) -> llm_spec.LlmReport:
        return llm_spec.LlmReport(*self.call("report"))

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        """Kill the program with all that it started."""
        if self.process.poll() is None:
            for process in self.descendants():
                process.kill()
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        os.close(self._answers)
        self.client.close()
        for segment in self.segments:
            Path(segment).unlink(missing_ok=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)


class Program:
    def __init__(self, order: list[Any]) -> None:
        engine, path, adapters, spec, run_dir = order
        self.spec = llm_spec.LlmSpec(
            NAME,
            path,
            aliases=(ALIAS,),
            adapters=tuple(llm_spec.Adapter(*adapter) for adapter in adapters.items()),
            device="cpu",
            **spec,
        )
        self.order = llm_engine.EngineOrder(self.spec, path, adapters, "mp", run_dir)
        make = {
            "vllm": vllm_engine.VllmEngine,
            "fake": lambda: fake_engine.FakeEngine(start_failure=broken(path)),
        }[engine]
        self.server = llm_server.LlmServer(
            model.ServerAddress(f"{NAME}/0", run_dir),
            self.order,
            make,
        )

    async def start(self) -> None:
        await self.server.start()

    async def report(self) -> llm_spec.LlmReport:
        return self.server.report()

    async def check(self) -> None:
        """Run the conformance suite on the engine that serves."""
        await engine_suite.check_started_engine(self.server.engine, self.order)

    async def failed(self) -> str:
        return await self.server.wait_until_failed()

    async def sleep(self, level: int) -> None:
        await self.server.sleep(level)

    async def drain(self, timeout_s: float) -> None:
        await self.server.drain(timeout_s)

    async def stop(self) -> None:
        await self.server.stop()

    async def strike(self, how: str) -> None:
        """Send a signal to the engine's core, or have a fake do what the signal does."""
        engine = self.server.engine
        if isinstance(engine, fake_engine.FakeEngine):
            (engine.die if how == "kill" else engine.stall)()
        else:
            core = next(
                child for child in psutil.Process().children() if "EngineCore" in child.cmdline()[0]
            )
            core.send_signal(STRIKES[how])


def broken(path: str) -> str:
    return "" if Path(path, "config.json").exists() else f"there is no model in {path}"


async def main(order: list[Any], answers: TextIO) -> None:
    program = Program(order)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    name = "start"
    args: list[Any] = []
    while True:
        try:
            answer = ("value", await getattr(program, name)(*args))
        except errors.MeshError as error:
            answer = (type(error).__name__, error.message)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        line = await lines.readline()
        if not line:
            return
        name, *args = json.loads(line)


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[2]), "w") as end:
        asyncio.run(main(json.loads(sys.argv[1]), end))

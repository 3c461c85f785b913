"""The mesh under test, its models on disk, and what faults need to find and to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

from tests.chaos import callers, oracle
from tests.e2e import running
from tests.faults import traffic

WORKERS = 3
STRUCK_MAX = 2
"""Workers that may be away at once: one is left, and answers for all."""
WORKER_BYTES = 320 << 20
PADDING_BYTES = 10 << 20
BACK_S = 180.0
"""Longer than any process takes to come back on a busy machine."""
POLL_S = 0.1
CHECKED_S = 2.0
"""By then Envoy has asked a worker that is back about its health."""
PASSING = {0, 503, 504}
"""Statuses of management requests that say nothing of the change: it is asked for again."""

STILL, BIG, CLASSES, ISOLATED = "still", "big", "class", "isolated"
TURNING, FILED, FLEETING, LLM = "turning", "filed", "fleeting", "llm"
REPLICAS = 2
COUNTS = {STILL: 10, BIG: 60, CLASSES: 3, ISOLATED: 2, TURNING: 4, FILED: 6, FLEETING: 4}
CLASS = """
import os, pathlib

class Model:
    inputs = [("x", "FP32", [-1, 8])]
    outputs = [("y", "FP32", [-1, 8])]

    def __init__(self):
        pathlib.Path({pids!r}, str(os.getpid())).touch()

    def predict(self, inputs):
        return {{"y": inputs["x"] * inputs["x"].dtype.type({factor})}}
"""


class Late(Exception):
    """Something did not happen within the time that it may take."""


class World:
    """What a fault works on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.judge = oracle.Judge()
        self.mesh: running.Mesh
        self.operator: callers.Operator
        self.subjects: dict[str, list[oracle.Subject]] = {}
        self.shared: set[str] = set()
        self.leaks: list[str] = []
        self.figures: list[str] = []
        # No two models ever have the same factor, so an answer of another model's is a wrong one.
        self._factors = itertools.count(2)
        self._numbers = itertools.count()
        self._locks: dict[str, asyncio.Lock] = {}
        # One part of the way to the workers is away at a time, as one worker is always left.
        self._front = asyncio.Lock()
        self._struck: set[str] = set()
        self._may_strike = asyncio.Semaphore(STRUCK_MAX)

    def isolated_pids(self) -> list[int]:
        """Return the living processes of isolated models."""
        pids = [int(path.name) for path in self.pids(ISOLATED).iterdir()]
        return [pid for pid in pids if pid in self.mesh.living()]

    # Models

    def document(self) -> dict[str, Any]:
        """Write all models and return the configuration of the mesh that serves them."""
        for group, count in COUNTS.items():
            self.subjects[group] = [
                oracle.Subject(f"{group}-{number}", self.factor()) for number in range(count)
            ]
        # Its engine repeats what it is asked for.
        self.subjects[LLM] = [oracle.Subject(LLM, 1)]
        for subject in self.subjects[FILED]:
            self.write(self.filed(subject, 1), subject.factor)
        for group in (TURNING, FLEETING):
            for subject in self.subjects[group]:
                subject.begin(oracle.ABSENT)
                subject.settle()
        declared = (STILL, BIG, CLASSES, ISOLATED)
        keys = [
            {"client": "user", "key": callers.USER},
            {"client": "operator", "key": callers.ADMIN, "admin": True},
        ]
        return {
            "gateway": {"keys": keys, "request_bytes_max": "16MiB"},
            "pools": {"default": {"workers": WORKERS, "memory": WORKER_BYTES}},
            "models": [
                self._entry(group, item) for group in declared for item in self.subjects[group]
            ],
            "llms": [self._llm()],
            "repositories": [{"path": str(self.repository)}],
        }

    def _llm(self) -> dict[str, Any]:
        weights = self.fresh_folder()
        (weights / "weights.bin").write_text("any")
        return {
            "name": LLM,
            "uri": str(weights),
            "runtime": "forking",
            "replicas": {"min": REPLICAS},
            "start_timeout_s": BACK_S,
        }

    def factor(self) -> float:
        """Return a factor that no other content has."""
        return float(next(self._factors))

    def write(self, path: Path, factor: float, padding_bytes: int = 0) -> Path:
        """Write an ONNX model of this factor."""
        return traffic.write_model(path, factor, padding_bytes)

    def fresh(self, factor: float) -> Path:
        """Write an ONNX model of this factor where no other one is."""
        return self.write(self.folder / "models" / f"{self.number()}.onnx", factor)

    def pids(self, group: str) -> Path:
        """Return the folder in which the models of a group of classes leave their process ids."""
        return self.folder / f"pids-{group}"

    def fresh_folder(self) -> Path:
        folder = self.folder / "models" / str(self.number())
        folder.mkdir(parents=True)
        return folder

    def filed(self, subject: oracle.Subject, version: int) -> Path:
        """Return the path of a version of a model in the repository."""
        return self.repository / subject.name / str(version) / "model.onnx"

    def _entry(self, group: str, subject: oracle.Subject) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": subject.name}
        if group in (STILL, BIG):
            path = self.folder / "models" / f"{subject.name}.onnx"
            padding = PADDING_BYTES if group == BIG else 0
            return {**entry, "uri": str(self.write(path, subject.factor, padding))}
        folder, pids = self.fresh_folder(), self.pids(group)
        pids.mkdir(exist_ok=True)
        (folder / "model.py").write_text(CLASS.format(factor=subject.factor, pids=str(pids)))
        isolate = "process" if group == ISOLATED else "none"
        return {**entry, "uri": str(folder), "runtime": "python", "trust": True, "isolate": isolate}

    def number(self) -> int:
        """Return a number that nothing else has."""
        return next(self._numbers)

    def only(self, subject: oracle.Subject) -> asyncio.Lock:
        """Return the lock of whoever changes this model."""
        return self._locks.setdefault(subject.name, asyncio.Lock())

    # The mesh

    async def manage(self, method: str, path: str, body: Any, what: str, *right: int) -> int:
        """Ask until an answer says whether it is done; complain of one that is not right.

        Return its status if it is right, else 0. Raises Late.
        """
        begin_s = time.monotonic()
        while True:
            answer = await self.operator.ask(method, path, body)
            if answer.status not in PASSING:
                break
            if time.monotonic() > begin_s + BACK_S:
                raise Late(f"{method} {path} gets no answer: {answer}")
            await asyncio.sleep(POLL_S)
        if answer.status not in right:
            said = f"{answer.status}: {answer.document}"
            self.judge.complain(f"{what} {path}: {said}", begin_s)
        return answer.status if answer.status in right else 0

    def excused(self, what: str, status: str, text: str) -> None:
        """Complain of a hostile request's end, unless the gateway was away."""
        now_s = self.judge.clock()
        if not any(
            status in known.statuses
            and not known.name
            and known.begin_s <= now_s <= known.end_s + 1
            for known in self.judge.allowances
        ):
            self.judge.complain(f"{what}: {status}: {text[:200]}")

    async def status(self, limit_s: float = BACK_S) -> dict[str, Any]:
        """Return the status as soon as the controller can be reached. Raises Late."""
        end_s = time.monotonic() + limit_s
        while True:
            answer = await self.operator.ask("GET", "status")
            if answer.status == 200:
                status: dict[str, Any] = answer.document
                return status
            if time.monotonic() > end_s:
                raise Late(f"no status within {limit_s:g} s: {answer}")
            await asyncio.sleep(POLL_S)

    @contextlib.asynccontextmanager
    async def gateway(self, chance: random.Random) -> AsyncIterator[dict[str, Any]]:
        """Yield a gateway that no other fault has, as soon as there is one. Raises Late."""
        async with self._front:
            await self.until_gateway("pid")
            yield chance.choice((await self.status())["gateways"])

    async def until_gateway(self, process: str, old_pid: int = 0) -> float:
        """Return the time until all gateways live, with others than `old_pid`. Raises Late."""

        def is_back(status: dict[str, Any]) -> bool:
            pids = [gateway[process] for gateway in status["gateways"]]
            alive = [pid not in (0, old_pid) and psutil.pid_exists(pid) for pid in pids]
            are_ready = all(gateway["state"] == "ready" for gateway in status["gateways"])
            return bool(alive) and all(alive) and are_ready

        return await self.until(is_back, f"a gateway with another {process} than {old_pid}")

    async def until(self, is_true: Callable[[dict[str, Any]], object], what: str) -> float:
        """Return the time until the status is so. Raises Late after `BACK_S`."""
        begin_s = time.monotonic()
        while not is_true(await self.status()):
            if time.monotonic() > begin_s + BACK_S:
                raise Late(f"not within {BACK_S:g} s: {what}")
            await asyncio.sleep(POLL_S)
        return time.monotonic() - begin_s

    @contextlib.asynccontextmanager
    async def struck_worker(self, chance: random.Random) -> AsyncIterator[dict[str, Any]]:
        """Yield a ready worker that no other fault has; it counts as away until the end.

        That is when all gateways know again every worker: until then nobody asks it.
        """
        async with self._may_strike:
            workers = [
                worker
                for worker in workers_of(await self.status()).values()
                if worker["id"] not in self._struck and worker["state"] == "ready"
            ]
            if not workers:
                raise Late("no worker is ready that could be struck")
            chosen = chance.choice(workers)
            self._struck.add(chosen["id"])
            try:
                yield chosen
                await asyncio.sleep(CHECKED_S)
            finally:
                self._struck.discard(chosen["id"])

    @contextlib.asynccontextmanager
    async def one_worker_less(self) -> AsyncIterator[None]:
        """Count one worker, whichever it is, as away until all are ready again."""
        async with self._may_strike:
            yield
            await self.until(are_all_ready, "all workers are ready")


def workers_of(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the workers of a status by id."""
    return {worker["id"]: worker for pool in status["pools"] for worker in pool["workers"]}


def replicas_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the LLM's replicas that are ready."""
    (llm,) = status["llms"]
    return [replica for replica in llm["replicas"] if replica["state"] == "ready"]


def has_all_replicas(status: dict[str, Any]) -> bool:
    return len(replicas_of(status)) == REPLICAS


def are_all_ready(status: dict[str, Any]) -> bool:
    return status["state"] == "ready" and all(
        worker["state"] == "ready" for worker in workers_of(status).values()
    )


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process of the mesh; do nothing if it has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

"""A real mesh on one node whose pools follow their load, and one of which sleeps."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import httpx
import pytest

from tests import support
from tests.e2e import running, zoo

pytestmark = [pytest.mark.edge, pytest.mark.slow]

SLOW = """\
import time
import numpy as np


class Model:
    inputs = [("x", "FP32", [-1, 4])]
    outputs = [("y", "FP32", [-1, 4])]

    def predict(self, inputs):
        time.sleep(0.2)
        return {"y": inputs["x"] * np.float32(2)}
"""
QUESTION = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]
}
ANSWER = [2.0, 4.0, 6.0, 8.0]
CALLERS = 16
GROWN_S = 90.0
"""How long other tests on the same machine may keep a worker from starting."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("scaled")
    uri = zoo.write_python(folder / "slow", SLOW)
    windows = {"grow_after_s": 1.0, "shrink_after_s": 3.0}
    pools = {
        "default": {"workers": {"min": 1, "max": 3, **windows}, "memory": "256MiB"},
        "asleep": {"workers": {"min": 0, "max": 1, **windows}, "memory": "256MiB"},
    }
    models = [
        {"name": name, "uri": uri, "runtime": "python", "trust": True, "pool": pool}
        for name, pool in (("busy", "default"), ("rare", "asleep"))
    ]
    with running.mesh({"pools": pools, "models": models, "state_dir": str(folder)}) as started:
        yield started


def pool(mesh: running.Mesh, name: str) -> dict[str, Any]:
    return next(pool for pool in mesh.status()["pools"] if pool["name"] == name)


def ready(mesh: running.Mesh, name: str) -> int:
    return sum(worker["state"] == "ready" for worker in pool(mesh, name)["workers"])


def ask(http: httpx.Client, model: str) -> tuple[int, Any]:
    reply = http.post(f"/v2/models/{model}/infer", json=QUESTION)
    return reply.status_code, reply.json()["outputs"][0]["data"] if reply.is_success else reply.text


class Callers:
    """Threads that ask a model one request after the other, and count the answers."""

    def __init__(self, mesh: running.Mesh, model: str) -> None:
        self.answers: Counter[str] = Counter()
        self._mesh, self._model = mesh, model
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with httpx.Client(base_url=str(self._mesh.http.base_url), timeout=60) as http:
            while not self._is_over.is_set():
                status, answer = ask(http, self._model)
                self.answers["good" if answer == ANSWER else f"{status} {answer}"] += 1


def test_a_pool_follows_its_load_up_and_down_without_a_failure(mesh: running.Mesh) -> None:
    assert ready(mesh, "default") == 1
    with Callers(mesh, "busy") as callers:
        support.wait_until(lambda: ready(mesh, "default") == 3, GROWN_S, "two more workers")
    # Some callers go on while workers end: what those had accepted must be answered.
    with httpx.Client(base_url=str(mesh.http.base_url), timeout=60) as http:

        def is_small() -> bool:
            status, answer = ask(http, "busy")
            callers.answers["good" if answer == ANSWER else f"{status} {answer}"] += 1
            return len(pool(mesh, "default")["workers"]) == 1

        support.wait_until(is_small, GROWN_S, "one worker is left")
    assert callers.answers.keys() == {"good"}


def test_the_first_requests_of_a_pool_that_sleeps_wait_for_one_start(mesh: running.Mesh) -> None:
    support.wait_until(lambda: not pool(mesh, "asleep")["workers"], GROWN_S, "it sleeps")
    unknown = mesh.http.post("/v2/models/unknown/infer", json=QUESTION)
    assert unknown.status_code == 404
    with (
        httpx.Client(base_url=str(mesh.http.base_url), timeout=60) as http,
        concurrent.futures.ThreadPoolExecutor(CALLERS) as threads,
    ):
        answers = list(threads.map(lambda _: ask(http, "rare"), range(CALLERS)))
    assert answers == [(200, ANSWER)] * CALLERS
    workers = pool(mesh, "asleep")["workers"]
    assert [worker["restarts"] for worker in workers] == [0]
    support.wait_until(lambda: not pool(mesh, "asleep")["workers"], GROWN_S, "it sleeps again")

"""A run whose callers have left is waited for in the worker, and ended in a process of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from meshserve import tasks
from meshserve.core.values import model
from meshserve.worker.models import model_host, run_watch
from tests import support
from tests.worker import helpers
from tests.worker.models import poison
from tests.worker.models.test_isolated_copies import answer, isolated, process_of

Hosting = Callable[..., model_host.ModelHost]

WAITING = """
    import threading

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]
        gate = threading.Event()

        def predict(self, inputs):
            if inputs["x"].flat[0] == 66.0:
                self.gate.wait(20)
            if inputs["x"].flat[0] == 67.0:
                self.gate.set()
            return {"y": inputs["x"] * 3}
"""


async def test_a_run_that_nobody_waits_for_is_ended_and_others_go_on(
    hosting: Hosting, storage: helpers.FakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_watch, "ABANDONED_S", 0.3)
    host = hosting()
    ticking = tasks.spawn(host.run(), "tick")
    options = {"kind": "spin", "moment": "predict"}
    helpers.apply(host, *helpers.declared(isolated(storage, "m", poison.SOURCE, options=options)))
    await answer(host, "m")
    process = process_of(host, "m")
    leaving = tasks.spawn(answer(host, "m", poison.POISONED), "leaving", is_awaited=True)
    await support.wait_until_async(lambda: bool(process._busy))
    waiting = tasks.spawn(answer(host, "m", 2.0), "waiting", is_awaited=True)
    leaving.cancel()
    np.testing.assert_array_equal(await waiting, [[6.0, 6.0]])
    assert "nobody waited for its run any more" in str(process.death)
    ticking.cancel()


async def test_a_process_whose_run_ends_in_time_is_kept(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    source = WAITING.replace("self.gate.wait(20)", "self.gate.wait(1.0)")
    helpers.apply(host, *helpers.declared(isolated(storage, "m", source)))
    await answer(host, "m")
    process = process_of(host, "m")
    leaving = tasks.spawn(answer(host, "m", 66.0), "leaving", is_awaited=True)
    await support.wait_until_async(lambda: bool(process._busy))
    leaving.cancel()
    np.testing.assert_array_equal(await answer(host, "m", 2.0), [[6.0, 6.0]])
    assert process_of(host, "m") is process


async def test_a_run_in_the_worker_keeps_its_lease_until_it_ends(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    source = WAITING.replace("self.gate.wait(20)", "self.gate.wait(1.0)")
    helpers.apply(host, *helpers.declared(helpers.spec("m", storage.put("m", source))))
    await answer(host, "m")
    key = host.residency.find_ready(model.ModelId("m"))
    assert key is not None
    leaving = tasks.spawn(answer(host, "m", 66.0), "leaving", is_awaited=True)
    await support.wait_until_async(lambda: host.residency.copies[key].leases == 1)
    leaving.cancel()
    host.unload(model.ModelId("m"))
    assert host.residency.copies[key].state.value == "draining"
    await support.wait_until_async(lambda: host.residency.copies[key].state.value == "absent")

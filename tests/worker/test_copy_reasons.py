from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import copy_details, model
from meshserve.protocol import inference, tensors
from meshserve.worker import copy_reasons
from meshserve.worker.models import model_host
from tests.worker import helpers

ID = model.ModelId("m")
WAIT_S = 20.0
WAITS = """
    import time

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]

        def predict(self, inputs):
            time.sleep(float(inputs["x"][0, 0]))
            return {"y": inputs["x"]}
"""
RAISES = """
    class Model:
        inputs = [("x", "FP32", [-1])]

        def __init__(self):
            raise ValueError("no weights")

        def predict(self, inputs):
            return inputs
"""


@pytest.fixture
async def host(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> model_host.ModelHost:
    new_host = hosting()
    helpers.apply(new_host, *helpers.declared(helpers.spec("m", storage.put("m"))))
    return new_host


def details(host: model_host.ModelHost) -> copy_details.CopyDetails:
    return copy_reasons.details(host, ID, asyncio.get_running_loop().time())


async def test_of_a_model_that_nobody_asked_for_nothing_is_known(
    host: model_host.ModelHost,
) -> None:
    assert details(host) == copy_details.CopyDetails(failed_requests={})


async def test_a_loaded_model_has_tensors_and_times(host: model_host.ModelHost) -> None:
    await host.ensure_loaded(ID, WAIT_S)
    known = details(host)
    assert (len(known.inputs) > 0, len(known.outputs) > 0) == (True, True)
    assert known.footprint_from == "measured by its last load on this worker"
    assert known.loaded_ago_s is not None
    assert known.loaded_ago_s >= 0.0
    assert known.slow == ()


async def test_a_model_out_of_memory_says_why_and_that_it_is_cold(
    host: model_host.ModelHost,
) -> None:
    await host.ensure_loaded(ID, WAIT_S)
    host.unload(ID)
    known = details(host)
    assert (known.departure_kind, known.departure_reason) == ("unloaded", "by request")
    [cold] = known.slow
    assert cold.startswith("cold: the next request loads it, which took ")


async def test_a_failed_load_says_how_often_and_when_it_is_tried_again(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    new_host = hosting()
    uri = storage.put("m", RAISES)
    helpers.apply(new_host, *helpers.declared(helpers.spec("m", uri)))
    with pytest.raises(errors.LoadFailed):
        await new_host.ensure_loaded(ID, WAIT_S)
    known = details(new_host)
    assert "no weights" in known.error
    assert (known.failures, known.loaded_ago_s) == (1, None)
    assert 0.0 <= known.retry_s <= 1.0
    assert known.slow == ()


async def test_a_queue_and_slow_runs_are_told(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    new_host = hosting()
    helpers.apply(new_host, *helpers.declared(helpers.spec("m", storage.put("m", WAITS))))
    await new_host.ensure_loaded(ID, WAIT_S)
    x = tensors.WireTensor("FP32", np.full((1, 2), 0.2, np.float32))
    calls = [inference.InferCall("m", "", "", {"x": x}) for _ in range(4)]
    expires_s = asyncio.get_running_loop().time() + WAIT_S
    running = [cast("Any", new_host.infer(call, expires_s)) for call in calls]
    words = " ".join(details(new_host).slow)
    assert "requests wait for its runs" in words
    await asyncio.gather(*running)
    queue, cpu = details(new_host).slow
    assert queue.startswith("queue: requests have waited ")
    assert cpu.startswith("CPU: its runs have taken ")

"""A model in a process of its own dies alone: the worker's other models answer on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshserve import errors, tasks
from meshserve.core.values import model
from meshserve.protocol import inference
from meshserve.worker.models import isolated_process, model_host, process_memory
from tests import support
from tests.worker import helpers
from tests.worker.models import poison

Hosting = Callable[..., model_host.ModelHost]
WAIT_S = 60.0
HOG_BYTES = 700 << 20
"""What a hog's worker has beside what this process takes already, with the libraries of others."""


def isolated(
    storage: helpers.FakeStorage, name: str, source: str = helpers.DOUBLED, **fields: Any
) -> model.ModelSpec:
    return helpers.spec(name, storage.put(name, source), isolate="process", **fields)


async def answer(
    host: model_host.ModelHost, name: str, value: float = 1.5, seconds: float = WAIT_S
) -> np.ndarray:
    """Return the output of a model for one row of two equal values."""
    call = inference.decode_infer(helpers.infer(name, ((value, value),)).SerializeToString())
    reply = host.infer(call, asyncio.get_running_loop().time() + seconds)
    if not isinstance(reply, inference.InferReply):
        reply = await reply
    return reply.outputs["y"]


def process_of(host: model_host.ModelHost, name: str) -> isolated_process.IsolatedProcess:
    key = host.residency.find_ready(model.ModelId(name))
    assert key is not None
    process = host._effects.resident(key).loaded_copy.process
    assert process is not None
    return process


async def wait_until_dead(host: model_host.ModelHost, name: str) -> None:
    await support.wait_until_async(lambda: host.residency.find_ready(model.ModelId(name)) is None)


async def keep_asking(
    host: model_host.ModelHost, name: str, factor: float, asked: list[int]
) -> None:
    """Ask a model again and again; assert that each answer is right."""
    while True:
        value = float(len(asked) % 50)
        np.testing.assert_array_equal(await answer(host, name, value), [[value * factor] * 2])
        asked.append(1)
        await asyncio.sleep(0)


@pytest.mark.parametrize("moment", poison.MOMENTS)
@pytest.mark.parametrize("kind", poison.KINDS)
async def test_a_model_that_kills_its_process_harms_no_other(
    hosting: Hosting, storage: helpers.FakeStorage, kind: str, moment: str
) -> None:
    host = hosting(memory=model.Footprint(HOG_BYTES + process_memory.private_bytes()))
    ticking = tasks.spawn(host.run(), "tick")
    options = {"kind": kind, "moment": moment}
    helpers.apply(
        host,
        *helpers.declared(
            helpers.spec("inside", storage.put("inside")),
            isolated(storage, "beside"),
            isolated(storage, "poison", poison.SOURCE, options=options),
        ),
    )
    asked: dict[str, list[int]] = {"inside": [], "beside": []}
    others = [tasks.spawn(keep_asking(host, name, 2.0, asked[name]), name) for name in asked]
    await support.wait_until_async(lambda: all(asked.values()))
    before = process_of(host, "beside").pid
    error_class = errors.ModelDied if moment == "predict" else errors.LoadDied
    with pytest.raises(error_class, match=poison.KINDS[kind]):
        await answer(host, "poison", poison.POISONED)
    counts = {name: len(done) for name, done in asked.items()}
    await support.wait_until_async(lambda: all(len(asked[n]) > counts[n] + 5 for n in asked))
    assert not any(task.done() for task in others)
    for task in (*others, ticking):
        task.cancel()
    assert process_of(host, "beside").pid == before


async def test_a_model_whose_process_died_is_loaded_again_by_the_next_request(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    helpers.apply(host, *helpers.declared(isolated(storage, "m")))
    await answer(host, "m")
    first = process_of(host, "m")
    os.kill(first.pid, signal.SIGKILL)
    await wait_until_dead(host, "m")
    np.testing.assert_array_equal(await answer(host, "m"), [[3.0, 3.0]])
    assert process_of(host, "m").pid != first.pid


async def test_a_model_that_dies_again_and_again_is_refused_for_a_while(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    options = {"kind": "exit", "moment": "predict"}
    helpers.apply(host, *helpers.declared(isolated(storage, "m", poison.SOURCE, options=options)))
    for _ in range(2):
        with pytest.raises(errors.ModelDied, match="exit code 3"):
            await answer(host, "m", poison.POISONED)
        await wait_until_dead(host, "m")
    with pytest.raises(errors.LoadDied, match="exit code 3") as refused:
        await answer(host, "m")
    assert refused.value.retry_after_s


async def test_a_freed_copy_leaves_no_process(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    helpers.apply(host, *helpers.declared(isolated(storage, "m")))
    await answer(host, "m")
    process = process_of(host, "m")
    host.unload(model.ModelId("m"))
    await support.wait_until_async(lambda: process.death is not None)
    assert str(process.death) == "the model's process ended itself with exit code 0"
    np.testing.assert_array_equal(await answer(host, "m"), [[3.0, 3.0]])
    assert host.residency.counts.load_failures == 0


async def test_the_footprint_is_that_of_the_process_and_counts_as_booked(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    big = helpers.DOUBLED.replace(
        "batchable = True",
        "batchable = True\n        kept = __import__('numpy').ones(48 << 20, 'u1')",
    )
    helpers.apply(host, *helpers.declared(isolated(storage, "m", big)))
    before = host._effects.measure_memory().private_bytes
    await answer(host, "m")
    booked = host.footprint(model.ModelId("m")).host_bytes
    assert 48 << 20 < booked < 96 << 20
    grown = host._effects.measure_memory().private_bytes - before
    assert booked * 0.7 < grown < booked + (64 << 20)


async def test_requests_that_wait_their_turn_behind_a_death_are_answered_by_the_next_process(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    options = {"kind": "exit", "moment": "predict"}
    helpers.apply(host, *helpers.declared(isolated(storage, "m", poison.SOURCE, options=options)))
    await answer(host, "m")
    dying = tasks.spawn(answer(host, "m", poison.POISONED), "dying", is_awaited=True)
    innocent = [
        tasks.spawn(answer(host, "m", value), "innocent", is_awaited=True) for value in (1.0, 2.0)
    ]
    with pytest.raises(errors.ModelDied):
        await dying
    for value, task in zip((1.0, 2.0), innocent, strict=True):
        np.testing.assert_array_equal(await task, [[value * 3] * 2])
    (stats,) = host.stats.values()
    assert (stats.success.count, stats.failure.count) == (3, 1)


async def test_a_host_that_closes_ends_its_models_processes(
    hosting: Hosting, storage: helpers.FakeStorage
) -> None:
    host = hosting()
    helpers.apply(host, *helpers.declared(isolated(storage, "m")))
    await answer(host, "m")
    process = process_of(host, "m")
    await host.close()
    assert process.death is not None

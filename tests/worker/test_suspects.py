"""Suspects in processes of their own, from the request to the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from meshserve import errors, tasks
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import catalog, containment, model
from meshserve.protocol import inference
from meshserve.worker.models import loader, model_host
from tests import support
from tests.worker import helpers

M, OTHER = model.ModelId("m"), model.ModelId("other")
PROBATION_S = 0.3
POISONED = """
    import ctypes, os, signal

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]

        def __init__(self):
            {load}

        def predict(self, inputs):
            first = inputs["x"][0, 0]
            if first == 9:
                ctypes.string_at(0)
            if first == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            if first == 7:
                raise ValueError("it is its own mistake")
            return {{"y": inputs["x"] * 2}}
"""
Hosting = Callable[..., model_host.ModelHost]
Begin = Callable[..., Awaitable[tuple[model_host.ModelHost, str]]]


async def ask(host: model_host.ModelHost, value: float, name: str = "m") -> Any:
    """Return the first number of the answer, or the class of the error."""
    call = inference.decode_infer(helpers.infer(name, [[value, value]]).SerializeToString())
    try:
        outcome = host.infer(call, asyncio.get_running_loop().time() + 30)
        reply = outcome if isinstance(outcome, inference.InferReply) else await outcome
    except errors.MeshError as error:
        return type(error)
    return float(reply.outputs["y"][0, 0])


@pytest.fixture
async def begin(hosting: Hosting, storage: helpers.FakeStorage) -> AsyncIterator[Begin]:
    """Return a function that makes a host with a poisoned model, and the key of its copy there."""
    hosts: list[model_host.ModelHost] = []

    async def make(load: str = "pass", **changes: Any) -> tuple[model_host.ModelHost, str]:
        hosts.append(hosting(**changes))
        uri = storage.put("m", POISONED.format(load=load))
        other = storage.put("other", POISONED.format(load="pass  # other"))
        specs = helpers.spec("m", uri), helpers.spec("other", other)
        helpers.apply(hosts[0], *helpers.declared(*specs))
        artifact = await storage.fetch(uri, "")
        return hosts[0], loader.make_recipe(helpers.spec("m", uri), artifact, "cpu").key

    yield make
    # Copies whose processes have died are freed in threads.
    await support.wait_until_async(lambda: not hosts[0]._effects._tasks._running)
    hosts[0].residency.check()


def suspect(host: model_host.ModelHost, key: str) -> None:
    host.trials.apply(containment.CopySuspected(key, PROBATION_S))


async def test_a_suspect_answers_alone_and_comes_back_once_it_is_acquitted(
    begin: Begin,
) -> None:
    host, key = await begin()
    assert await ask(host, 1) == 2.0
    assert host.residency.find_ready(M) == key
    suspect(host, key)
    assert await asyncio.gather(*(ask(host, value) for value in (1, 2, 7))) == [
        2.0,
        4.0,
        errors.ModelRaised,
    ]
    assert host.residency.find_ready(M) == loader.alone_key(key)
    await asyncio.sleep(PROBATION_S)
    host.trials.end_probations()
    # The copy alone answers until that in the worker is there.
    assert await ask(host, 3) == 6.0
    await support.wait_until_async(lambda: host.residency.find_ready(M) == key)


async def test_a_poisoned_request_ends_its_own_process_and_the_model_is_refused(
    begin: Begin,
) -> None:
    host, key = await begin()
    assert await ask(host, 1) == 2.0
    suspect(host, key)
    outcomes = await asyncio.gather(*(ask(host, 9) for _ in range(5)), ask(host, 1, "other"))
    assert outcomes == [*[errors.Quarantined] * 5, 2.0]
    assert await ask(host, 1) is errors.Quarantined
    assert not host.is_ready("m", "")
    (trial,) = host.trials.findings(catalog.Catalog())
    assert (trial.key, trial.id, "SIGSEGV" in trial.reason) == (key, M, True)
    # A release lets it run again, alone.
    host.trials.apply(containment.QuarantineEnded(key))
    assert await ask(host, 1) == 2.0
    assert host.residency.find_ready(M) == loader.alone_key(key)
    assert await ask(host, 9) is errors.Quarantined


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "exit code 3"),
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    ],
)
async def test_a_load_that_ends_its_process_is_told_with_its_cause(
    begin: Begin, end: str, cause: str
) -> None:
    host, key = await begin(end)
    suspect(host, key)
    outcomes = await asyncio.gather(*(ask(host, 1) for _ in range(2)))
    assert outcomes == [errors.Quarantined] * 2
    (trial,) = host.trials.findings(catalog.Catalog())
    assert cause in trial.reason
    assert await ask(host, 1, "other") == 2.0


async def test_a_kill_is_answered_by_unavailable_until_the_second_one(
    begin: Begin,
) -> None:
    host, key = await begin()
    suspect(host, key)
    assert await ask(host, 8) is errors.Unavailable
    # Until its death is known, others are sent to the dying process, and told to come again.
    await support.wait_until_async(lambda: host.residency.find_ready(M) is None)
    assert await ask(host, 1) == 2.0
    await ask(host, 8)
    await support.wait_until_async(lambda: bool(host.trials.findings(catalog.Catalog())))
    assert await ask(host, 8) is errors.Quarantined


async def test_a_suspect_is_answered_where_the_budget_has_no_room_for_a_process(
    begin: Begin,
) -> None:
    # A class is expected to take 32 MiB, and a process 24 MiB more.
    host, key = await begin(memory=model.Footprint(40 << 20))
    suspect(host, key)
    assert await ask(host, 1) == 2.0
    assert host.residency.find_ready(M) == loader.alone_key(key)
    assert host.footprint(M).host_bytes < 40 << 20


@pytest.mark.parametrize("ends", ["acquitted", "replaced"])
async def test_a_trial_that_nobody_wants_once_it_is_loaded_convicts_nobody(
    begin: Begin, storage: helpers.FakeStorage, ends: str
) -> None:
    host, key = await begin("__import__('time').sleep(0.5)")
    suspect(host, key)
    asked = tasks.spawn(ask(host, 1), "ask", is_awaited=True)
    alone = loader.alone_key(key)
    await support.wait_until_async(lambda: is_loading(host, alone))
    if ends == "acquitted":
        host.trials.apply(containment.SuspicionEnded(key))
    else:
        other = storage.put("mended", POISONED.format(load="pass  # mended"))
        helpers.apply(host, *helpers.declared(helpers.spec("m", other)))
    assert await asked == 2.0
    # The copy that runs alone closes as soon as it is loaded: its process ends with exit code 0.
    await support.wait_until_async(
        lambda: alone not in host.residency.copies and not host._effects._tasks._running
    )
    await asyncio.sleep(0)
    assert host.trials.findings(catalog.Catalog()) == ()
    assert await ask(host, 1) == 2.0


def is_loading(host: model_host.ModelHost, key: str) -> bool:
    record = host.residency.copies.get(key)
    return record is not None and record.state is CopyPhase.LOADING


async def test_a_suspect_whose_library_takes_much_is_no_hog_where_memory_is_short(
    begin: Begin,
) -> None:
    # A class is expected to take 32 MiB, so without its library it might grow to 128.
    host, key = await begin(
        "self.library = bytearray(os.urandom(1 << 20)) * 160", memory=model.Footprint(40 << 20)
    )
    suspect(host, key)
    assert await ask(host, 1) == 2.0
    host._effects.measure_memory()
    assert await ask(host, 1) == 2.0
    assert host.residency.find_ready(M) == loader.alone_key(key)
    assert host.trials.findings(catalog.Catalog()) == ()


async def test_a_changed_artifact_is_beyond_suspicion_and_quarantine(
    begin: Begin, storage: helpers.FakeStorage
) -> None:
    host, key = await begin()
    suspect(host, key)
    assert await ask(host, 9) is errors.Quarantined
    mended = storage.put("mended", POISONED.format(load="pass  # mended"))
    helpers.apply(host, *helpers.declared(helpers.spec("m", mended)))
    assert await ask(host, 1) == 2.0
    assert host.residency.find_ready(M) not in (key, loader.alone_key(key))

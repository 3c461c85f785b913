from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from meshserve import errors, tasks
from meshserve.core.values import catalog, model, model_stats
from meshserve.worker.models import model_host, run_requests
from tests import support
from tests.worker import helpers

ID = model.ModelId("m")
WAIT_S = 20.0
BIG = """
    import numpy as np

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]

        def __init__(self, path, options):
            self.weights = np.ones(48 << 20, np.uint8)

        def predict(self, inputs):
            return {"y": inputs["x"]}
"""
RAISES = """
    class Model:
        inputs = [("x", "FP32", [-1])]

        def __init__(self):
            raise ValueError("größe fehlt")

        def predict(self, inputs):
            return inputs
"""
HANGS = """
    import time

    class Model:
        inputs = [("x", "FP32", [-1])]

        def __init__(self):
            time.sleep(600)

        def predict(self, inputs):
            return inputs
"""


@pytest.fixture
async def host(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> model_host.ModelHost:
    """One host with a model."""
    new_host = hosting()
    helpers.apply(new_host, *helpers.declared(helpers.spec("m", storage.put("m"))))
    return new_host


def later(seconds: float = WAIT_S) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_many_requests_wait_for_one_load(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    waiting = [tasks.spawn(host.lease(ID, later()), "lease", is_awaited=True) for _ in range(200)]
    await asyncio.sleep(0)
    assert host.residency.find_ready(ID) is None
    storage.gate.set()
    residents = await asyncio.gather(*waiting)
    assert len({id(resident) for resident in residents}) == 1
    assert (host.residency.counts.loads, host.residency.counts.misses) == (1, 200)
    for resident in residents:
        host.release(resident)
    assert await host.lease(ID, later()) is residents[0]
    host.release(residents[0])
    host.residency.check()


async def test_the_same_bytes_under_two_names_are_one_copy(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    helpers.apply(host, *helpers.declared(helpers.spec("twin", storage.put("twin"))))
    first = await host.lease(ID, later())
    second = await host.lease(model.ModelId("twin"), later())
    assert first is second
    assert host.residency.counts.loads == 1


async def test_a_deadline_ends_the_wait_and_not_the_load(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    with pytest.raises(errors.DeadlineExceeded, match="while model m:1 was loading"):
        await host.lease(ID, later(0.05))
    storage.gate.set()
    await host.ensure_loaded(ID, WAIT_S)
    assert sum(storage.fetches.values()) <= 4


async def test_a_lease_that_is_granted_to_a_requester_that_leaves_ends(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    waiting = tasks.spawn(host.lease(ID, later()), "lease", is_awaited=True)
    await asyncio.sleep(0)
    (answer,) = host._waits._waiting.values()
    storage.gate.set()
    while not answer.done():  # noqa: ASYNC110 in the very tick of the grant
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [copy.leases for copy in host.residency.copies.values()] == [0]
    host.residency.check()


async def test_a_cancelled_request_holds_no_lease(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    waiting = tasks.spawn(host.lease(ID, later()), "lease", is_awaited=True)
    await asyncio.sleep(0)
    waiting.cancel()
    storage.gate.set()
    await host.ensure_loaded(ID, WAIT_S)
    host.unload(ID)
    await support.wait_until_async(
        lambda: host.residency.find_ready(ID) is None, 10, "it is gone, for nobody holds it"
    )
    host.residency.check()


async def test_a_failed_fetch_is_answered_with_its_reason_until_the_next_try(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.failure = errors.LoadFailed("the storage is empty")
    for _ in range(5):
        with pytest.raises(errors.LoadFailed, match="the storage is empty") as caught:
            await host.lease(ID, later())
        assert caught.value.retry_after_s
        assert caught.value.retry_after_s > 0
    assert sum(storage.fetches.values()) == 1
    assert not host.is_ready("m", "")
    storage.failure = None
    await asyncio.sleep(caught.value.retry_after_s or 0)
    await host.ensure_loaded(ID, WAIT_S)
    assert host.is_ready("m", "")


async def test_a_failed_load_is_answered_with_its_reason(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    helpers.apply(host, *helpers.declared(helpers.spec("bad", storage.put("bad", RAISES))))
    with pytest.raises(errors.LoadFailed, match=r"model\.py:6: ValueError: größe fehlt"):
        await host.lease(model.ModelId("bad"), later())
    assert host.residency.counts.load_failures == 1


async def test_a_load_that_hangs_is_given_up_and_others_go_on(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    hanging = model.ModelId("hangs")
    helpers.apply(
        host,
        *helpers.declared(helpers.spec("hangs", storage.put("hangs", HANGS), load_timeout_s=0.2)),
    )
    ticking = tasks.spawn(host.run(), "run", is_awaited=True)
    with pytest.raises(errors.LoadFailed, match=r"the load has not ended within 0\.2 s"):
        await host.lease(hanging, later())
    await host.ensure_loaded(ID, WAIT_S)
    ticking.cancel()
    host.residency.check()


async def test_a_model_that_is_too_big_evicts_nothing(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    host = hosting(memory=model.Footprint(40 << 20))
    helpers.apply(
        host,
        *helpers.declared(
            helpers.spec("m", storage.put("m")), helpers.spec("big", storage.put("big", BIG))
        ),
    )
    await host.ensure_loaded(ID, WAIT_S)
    for _ in range(3):
        with pytest.raises(errors.ModelTooBig, match="MiB of memory"):
            await host.lease(model.ModelId("big"), later())
    assert host.residency.counts.evictions == 0
    assert host.residency.find_ready(ID) is not None


async def test_an_unused_copy_makes_room(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    host = hosting(memory=model.Footprint(70 << 20))
    sources = {name: BIG + f"    # {name}" for name in ("a", "b")}
    helpers.apply(
        host,
        *helpers.declared(
            *(helpers.spec(name, storage.put(name, source)) for name, source in sources.items())
        ),
    )
    a, b = model.ModelId("a"), model.ModelId("b")
    for id_ in (a, b, a):
        await host.ensure_loaded(id_, WAIT_S)
    assert host.residency.find_ready(b) is None
    assert (host.residency.counts.loads, host.residency.counts.evictions) == (3, 2)


async def test_a_model_in_use_is_not_freed(host: model_host.ModelHost) -> None:
    resident = await host.lease(ID, later())
    helpers.apply(host, catalog.ModelWithdrawn(ID))
    assert resident.loaded_copy.loaded.predict({"x": np.ones((1, 2), np.float32)}, ())[
        "y"
    ].tolist() == [[2, 2]]
    assert host.residency.copies
    host.release(resident)
    await support.wait_until_async(
        lambda: not host.residency.copies, 10, "it is freed once nobody uses it"
    )


async def test_a_changed_model_is_loaded_anew(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    await host.ensure_loaded(ID, WAIT_S)
    storage.put("m2", helpers.DOUBLED.replace("* 2", "* 3"))
    helpers.apply(host, *helpers.declared(helpers.spec("m", str(storage.folder / "m2"))))
    resident = await host.lease(ID, later())
    assert resident.loaded_copy.loaded.predict({"x": np.ones((1, 2), np.float32)}, ())[
        "y"
    ].tolist() == [[3, 3]]


async def test_requests_that_wait_for_a_withdrawn_model_are_refused(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    waiting = tasks.spawn(host.lease(ID, later()), "lease", is_awaited=True)
    await asyncio.sleep(0)
    helpers.apply(host, catalog.ModelWithdrawn(ID))
    with pytest.raises(errors.ModelNotFound, match="removed while requests waited"):
        await waiting
    storage.gate.set()


async def test_a_pinned_copy_stays(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    host = hosting(memory=model.Footprint(70 << 20))
    sources = {name: BIG + f"    # {name}" for name in ("a", "b")}
    helpers.apply(
        host,
        *helpers.declared(
            *(helpers.spec(name, storage.put(name, source)) for name, source in sources.items())
        ),
    )
    host.set_pinned(model.ModelId("a"), is_pinned=True)
    await host.ensure_loaded(model.ModelId("a"), WAIT_S)
    with pytest.raises(errors.ModelTooBig):
        await host.ensure_loaded(model.ModelId("b"), WAIT_S)
    assert host.footprint(model.ModelId("a")).host_bytes > 0


async def test_a_users_code_never_runs_on_the_event_loop(host: model_host.ModelHost) -> None:
    resident = await host.lease(ID, later())
    request = run_requests.RunRequest({"x": np.ones((1, 2), np.float32)}, (), 1, later())
    assert isinstance(resident.batcher.run(request, model_stats.ModelStats()), asyncio.Future)

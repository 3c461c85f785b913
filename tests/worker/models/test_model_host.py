from __future__ import annotations

import asyncio

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import catalog, model
from tests import support
from tests.worker import bench

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
async def host(hosting, shelf):
    """One host with a model."""
    made = hosting()
    bench.told(made, *bench.declared(bench.spec("m", shelf.put("m"))))
    return made


def later(seconds=WAIT_S):
    return asyncio.get_running_loop().time() + seconds


async def test_many_wait_for_one_load(host, shelf):
    shelf.gate.clear()
    waiting = [asyncio.ensure_future(host.lease(ID, later())) for _ in range(200)]
    await asyncio.sleep(0)
    assert host.lease_now(ID) is None
    shelf.gate.set()
    residents = await asyncio.gather(*waiting)
    assert len({id(resident) for resident in residents}) == 1
    assert (host.residency.counts.loads, host.residency.counts.misses) == (1, 200)
    for resident in residents:
        host.release(resident)
    assert host.lease_now(ID) is residents[0]
    host.release(residents[0])
    host.residency.check()


async def test_the_same_bytes_under_two_names_are_one_copy(host, shelf):
    bench.told(host, *bench.declared(bench.spec("twin", shelf.put("twin"))))
    first = await host.lease(ID, later())
    second = await host.lease(model.ModelId("twin"), later())
    assert first is second
    assert host.residency.counts.loads == 1


async def test_a_deadline_ends_the_wait_and_not_the_load(host, shelf):
    shelf.gate.clear()
    with pytest.raises(errors.DeadlineExceeded, match="while model m:1 was loading"):
        await host.lease(ID, later(0.05))
    shelf.gate.set()
    await host.ensure_loaded(ID, WAIT_S)
    assert sum(shelf.fetches.values()) <= 4


async def test_who_leaves_owes_nothing(host, shelf):
    shelf.gate.clear()
    waiting = asyncio.ensure_future(host.lease(ID, later()))
    await asyncio.sleep(0)
    waiting.cancel()
    shelf.gate.set()
    await host.ensure_loaded(ID, WAIT_S)
    host.unload(ID)
    await support.wait_until_async(
        lambda: host.lease_now(ID) is None, 10, "it is gone, for nobody holds it"
    )
    host.residency.check()


async def test_one_that_can_not_be_fetched_says_why_until_it_is_tried_again(host, shelf):
    shelf.failure = errors.LoadFailed("the shelf is empty")
    for _ in range(5):
        with pytest.raises(errors.LoadFailed, match="the shelf is empty") as caught:
            await host.lease(ID, later())
        assert caught.value.retry_after_s > 0
    assert sum(shelf.fetches.values()) == 1
    assert host.has_failed(ID)
    shelf.failure = None
    await asyncio.sleep(caught.value.retry_after_s)
    await host.ensure_loaded(ID, WAIT_S)
    assert not host.has_failed(ID)


async def test_one_that_raises_says_why(host, shelf):
    bench.told(host, *bench.declared(bench.spec("bad", shelf.put("bad", RAISES))))
    with pytest.raises(errors.LoadFailed, match=r"model\.py:6: ValueError: größe fehlt"):
        await host.lease(model.ModelId("bad"), later())
    assert host.residency.counts.load_failures == 1


async def test_one_that_hangs_is_given_up_and_others_go_on(host, shelf):
    hanging = model.ModelId("hangs")
    bench.told(
        host, *bench.declared(bench.spec("hangs", shelf.put("hangs", HANGS), load_timeout_s=0.2))
    )
    ticking = asyncio.ensure_future(host.run())
    with pytest.raises(errors.LoadFailed, match=r"the load has not ended within 0\.2 s"):
        await host.lease(hanging, later())
    await host.ensure_loaded(ID, WAIT_S)
    ticking.cancel()
    host.residency.check()


async def test_what_is_too_big_is_told_so_and_evicts_nobody(hosting, shelf):
    host = hosting(memory=model.Footprint(40 << 20))
    bench.told(
        host,
        *bench.declared(bench.spec("m", shelf.put("m")), bench.spec("big", shelf.put("big", BIG))),
    )
    await host.ensure_loaded(ID, WAIT_S)
    for _ in range(3):
        with pytest.raises(errors.ModelTooBig, match="MiB of memory"):
            await host.lease(model.ModelId("big"), later())
    assert host.residency.counts.evictions == 0
    held = host.lease_now(ID)
    assert held is not None
    host.release(held)


async def test_who_is_not_used_makes_room(hosting, shelf):
    host = hosting(memory=model.Footprint(70 << 20))
    sources = {name: BIG + f"    # {name}" for name in ("a", "b")}
    bench.told(
        host,
        *bench.declared(
            *(bench.spec(name, shelf.put(name, source)) for name, source in sources.items())
        ),
    )
    a, b = model.ModelId("a"), model.ModelId("b")
    for id_ in (a, b, a):
        await host.ensure_loaded(id_, WAIT_S)
    assert host.lease_now(b) is None
    assert (host.residency.counts.loads, host.residency.counts.evictions) == (3, 2)


async def test_a_model_in_use_is_not_freed(host):
    resident = await host.lease(ID, later())
    bench.told(host, catalog.ModelWithdrawn(ID))
    assert resident.made.loaded.predict({"x": np.ones((1, 2), np.float32)}, ())["y"].tolist() == [
        [2, 2]
    ]
    assert host.residency.copies
    host.release(resident)
    await support.wait_until_async(
        lambda: not host.residency.copies, 10, "it is freed once nobody uses it"
    )


async def test_a_changed_model_is_loaded_anew(host, shelf):
    await host.ensure_loaded(ID, WAIT_S)
    shelf.put("m2", bench.DOUBLED.replace("* 2", "* 3"))
    bench.told(host, *bench.declared(bench.spec("m", str(shelf.folder / "m2"))))
    resident = await host.lease(ID, later())
    assert resident.made.loaded.predict({"x": np.ones((1, 2), np.float32)}, ())["y"].tolist() == [
        [3, 3]
    ]


async def test_a_withdrawn_model_is_refused_to_who_waits(host, shelf):
    shelf.gate.clear()
    waiting = asyncio.ensure_future(host.lease(ID, later()))
    await asyncio.sleep(0)
    bench.told(host, catalog.ModelWithdrawn(ID))
    with pytest.raises(errors.ModelNotFound, match="removed while requests waited"):
        await waiting
    shelf.gate.set()


async def test_what_is_pinned_stays(hosting, shelf):
    host = hosting(memory=model.Footprint(70 << 20))
    sources = {name: BIG + f"    # {name}" for name in ("a", "b")}
    bench.told(
        host,
        *bench.declared(
            *(bench.spec(name, shelf.put(name, source)) for name, source in sources.items())
        ),
    )
    host.set_pinned(model.ModelId("a"), is_pinned=True)
    await host.ensure_loaded(model.ModelId("a"), WAIT_S)
    with pytest.raises(errors.ModelTooBig):
        await host.ensure_loaded(model.ModelId("b"), WAIT_S)
    assert host.footprint(model.ModelId("a")).host_bytes > 0


async def test_users_code_is_never_run_on_the_event_loop(host):
    resident = await host.lease(ID, later())
    assert not resident.runner.is_quick(1)

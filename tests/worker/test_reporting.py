from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core import model, report
from meshserve.worker import reporting, tally
from tests.worker import bench

ID = model.ModelId("m")


@pytest.fixture
async def host(hosting, shelf):
    made = hosting()
    bench.told(made, *bench.declared(bench.spec("m", shelf.put("m"))))
    return made


async def test_counters_are_the_hosts_and_the_apps(host):
    await host.ensure_loaded(ID, 20)
    load = tally.Load(requests=7, failures=2, in_flight=1)
    assert reporting.counters(host, load) == report.Counters(
        requests=7, failures=2, hits=0, misses=1, loads=1, load_failures=0, evictions=0, in_flight=1
    )


async def test_what_was_learned_is_told_once(host):
    await host.ensure_loaded(ID, 20)
    [learned] = reporting.learned(host)
    assert learned.id == ID
    assert learned.measured.footprint == host.footprint(ID)
    assert reporting.learned(host) == ()


async def test_copies_are_told_with_their_state(host):
    assert reporting.copies(host) == ()
    await host.ensure_loaded(ID, 20)
    host.set_pinned(ID, is_pinned=True)
    [copy] = reporting.copies(host)
    assert (copy.id, copy.state, copy.pinned, copy.reason) == (ID, "ready", True, "")
    assert copy.footprint == host.footprint(ID)
    assert reporting.copies(host, [model.ModelId("nobody")]) == ()


async def test_a_failed_one_says_why(host, shelf):
    shelf.failure = errors.LoadFailed("the shelf is empty")
    with pytest.raises(errors.LoadFailed):
        await host.ensure_loaded(ID, 20)
    [copy] = reporting.copies(host)
    assert (copy.state, copy.reason) == ("failed", "the shelf is empty")

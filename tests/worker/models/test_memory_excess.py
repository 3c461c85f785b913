from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from meshserve import errors, tasks
from meshserve.core.memory import copy_lifecycle
from meshserve.core.values import model
from meshserve.worker.models import memory_excess, model_host, process_memory
from tests import support
from tests.worker import helpers
from tests.worker.models.test_isolated_copies import answer, process_of

IN_MEMORY = set(copy_lifecycle.CopyPhase) - {
    copy_lifecycle.CopyPhase.ABSENT,
    copy_lifecycle.CopyPhase.FAILED,
}
Hosting = Callable[..., model_host.ModelHost]

MIB = 1 << 20


def excess() -> memory_excess.MemoryExcess:
    return memory_excess.MemoryExcess(400 * MIB)


def test_what_runs_when_the_process_grows_far_beyond_its_budget_is_named() -> None:
    seen = excess()
    assert seen.note(300 * MIB, {"a"}, 0.0) == set()
    assert seen.note(480 * MIB, {"a"}, 0.25) == set()  # as copies that come and go do
    assert seen.note(600 * MIB, {"a", "b"}, 0.5) == {"a", "b"}
    # The same run of `a` takes more, and counts once.
    assert seen.note(700 * MIB, {"a"}, 0.75) == set()
    # The memory is still there, but nothing more was taken.
    assert seen.note(710 * MIB, {"c"}, 1.0) == set()
    assert seen.note(900 * MIB, {"a"}, 1.25) == {"a"}
    assert seen.times == {"a": 2, "b": 1}
    assert (seen.peak_bytes, seen.lasting_s(3.5)) == ({"a": 900 * MIB, "b": 600 * MIB}, 3.0)
    assert seen.note(300 * MIB, (), 4.0) == set()
    assert seen.lasting_s(5.0) == 0.0
    assert seen.note(600 * MIB, {"a"}, 6.0) == {"a"}


def test_slow_growth_is_seen_and_what_a_process_always_takes_is_not() -> None:
    seen = excess()
    assert seen.note(900 * MIB, {"a"}, 0.0) == set()
    assert seen.note(930 * MIB, {"a"}, 0.25) == set()
    growing = excess()
    named = [growing.note((400 + 5 * step) * MIB, {"a"}, step / 4) for step in range(60)]
    assert {"a"} in named


TAKING = """
    import os, time
    import numpy as np

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]

        def __init__(self, path, options):
            self.options = options

        def predict(self, inputs):
            value = int(inputs["x"].flat[0])
            if value > 60:
                taken = np.ones(self.options["bytes"], np.uint8)
            while value > 60 and not os.path.exists(f"{self.options['end']}{value}"):
                time.sleep(0.01)
            return {"y": inputs["x"] * 3}
"""


def has_taken(host: model_host.ModelHost, times: int) -> bool:
    return [hog.times for hog in host.trials.ailing.hogs()] == [times]


@pytest.mark.timeout(200)
async def test_a_model_that_takes_too_much_again_and_again_is_named_then_tried_then_refused(
    hosting: Hosting, storage: helpers.FakeStorage, tmp_path: Path
) -> None:
    budget_bytes = process_memory.private_bytes() + 256 * MIB
    host = hosting(memory=model.Footprint(budget_bytes))
    # A trial may take the whole budget, most of which this process may take, by its other tests.
    options = {"bytes": budget_bytes + 64 * MIB, "end": str(tmp_path / "end")}
    spec = helpers.spec("hog", storage.put("hog", TAKING), options=options)
    helpers.apply(host, *helpers.declared(spec))
    ticking = tasks.spawn(host.run(), "tick")
    await answer(host, "hog")
    for value in (61, 62):
        asked = tasks.spawn(answer(host, "hog", value), "asked", is_awaited=True)
        # A budget that this process itself used up would show here.
        await asyncio.wait((asked,), timeout=1.0)
        assert not asked.done(), asked.exception()
        is_told = functools.partial(has_taken, host, value - 60)
        await support.wait_until_async(is_told)
        (tmp_path / f"end{value}").touch()
        np.testing.assert_array_equal(await asked, [[3.0 * value] * 2])
        await support.wait_until_async(lambda: host.trials.ailing.excess_s == 0.0)
    (hog,) = host.trials.ailing.hogs()
    assert (hog.ids, hog.is_suspect) == ((model.ModelId("hog"),), True)
    await answer(host, "hog")
    assert process_of(host, "hog").death is None
    with pytest.raises(errors.Quarantined, match=r"it took \d+ MiB"):
        await answer(host, "hog", 63.0)
    with pytest.raises(errors.Quarantined):
        await answer(host, "hog")
    # The process that was killed is freed in a thread.
    await support.wait_until_async(
        lambda: (
            {copy.state.value for copy in host.residency.copies.values()} <= {"absent", "failed"}
        )
    )
    ticking.cancel()

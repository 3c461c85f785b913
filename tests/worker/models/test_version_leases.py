from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from meshserve import errors, tasks
from meshserve.core.values import catalog, model
from meshserve.protocol import inference
from meshserve.worker import worker_report
from meshserve.worker.models import model_host
from tests import support
from tests.worker import helpers

WAIT_S = 20.0
BROKEN = "this is no Python ("
MakeHost = Callable[..., model_host.ModelHost]


def times(factor: int) -> str:
    return helpers.DOUBLED.replace("* 2", f"* {factor}")


def declare(host: model_host.ModelHost, uri: str, version: str = "1", name: str = "m") -> None:
    helpers.apply(host, *helpers.declared(helpers.spec(name, uri, version)))


async def answer(
    host: model_host.ModelHost, version: str = "", name: str = "m"
) -> tuple[float, str]:
    """Return what the model makes of 1, and the version that it answers with."""
    inputs = {"x": inference.WireTensor("FP32", np.ones((1, 2), np.float32))}
    call = inference.InferCall(model=name, version=version, inputs=inputs)
    outcome = host.infer(call, asyncio.get_running_loop().time() + WAIT_S)
    reply = outcome if isinstance(outcome, inference.InferReply) else await outcome
    return float(reply.outputs["y"][0, 0]), reply.version


@pytest.fixture
async def host(hosting: MakeHost, storage: helpers.FakeStorage) -> model_host.ModelHost:
    """A host that has answered with the first version of `m`, which doubles."""
    served = hosting()
    declare(served, storage.put("m/1"))
    assert await answer(served) == (2.0, "1")
    return served


def failure(host: model_host.ModelHost, version: str = "1") -> str:
    """Return what the next report would say of a version that has failed."""
    (copy,) = worker_report.copies(host, [model.ModelId("m", version)])
    assert copy.state == "failed"
    return copy.reason


async def test_a_version_that_a_broken_one_supersedes_goes_on_answering(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    second = helpers.declared(helpers.spec("m", storage.put("m/2", BROKEN), "2"))
    helpers.apply(host, catalog.ModelWithdrawn(model.ModelId("m", "1")), *second)
    for _ in range(3):
        assert await answer(host) == (2.0, "1")
    with pytest.raises(errors.ModelNotFound):
        await answer(host, "1")
    with pytest.raises(errors.LoadFailed):
        await answer(host, "2")
    assert await answer(host) == (2.0, "1")
    third = helpers.declared(helpers.spec("m", storage.put("m/3", times(3)), "3"))
    helpers.apply(host, catalog.ModelWithdrawn(model.ModelId("m", "2")), *third)
    await host.ensure_loaded(model.ModelId("m", "3"), WAIT_S)
    assert await answer(host) == (3.0, "3")
    assert {id_.version for id_ in host.residency.bindings} == {"3"}


async def test_what_was_removed_does_not_answer_for_its_version_that_is_declared_anew(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    second = helpers.declared(helpers.spec("m", storage.put("m/2", BROKEN), "2"))
    helpers.apply(host, catalog.ModelWithdrawn(model.ModelId("m", "1")), *second)
    declare(host, storage.put("m/new", BROKEN), "1")
    for version in ("1", "2"):
        with pytest.raises(errors.LoadFailed):
            await answer(host, version)
    assert await answer(host) == (2.0, "1")


async def test_a_version_that_is_removed_while_a_request_waits_is_not_told_as_the_models_error(
    hosting: MakeHost, storage: helpers.FakeStorage
) -> None:
    served = hosting()
    declare(served, storage.put("m/1", BROKEN))
    declare(served, storage.put("m/2"), "2")
    storage.gate.clear()
    asked = tasks.spawn(answer(served), "answer", is_awaited=True)
    await support.wait_until_async(lambda: storage.fetches)
    helpers.apply(served, catalog.ModelWithdrawn(model.ModelId("m", "2")))
    storage.gate.set()
    with pytest.raises(errors.LoadFailed, match="SyntaxError"):
        await asked


async def test_who_removes_the_newest_version_gets_the_older_one(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("m/2", times(3)), "2")
    await host.ensure_loaded(model.ModelId("m", "2"), WAIT_S)
    host.unload(model.ModelId("m", "1"))
    helpers.apply(host, catalog.ModelWithdrawn(model.ModelId("m", "2")))
    assert await answer(host) == (2.0, "1")


async def test_a_new_version_answers_once_it_is_loaded(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    declare(host, storage.put("m/2", times(3)), "2")
    assert await answer(host) == (2.0, "1")
    assert await answer(host) == (2.0, "1")
    storage.gate.set()
    await support.wait_until_async(lambda: host.residency.find_ready(model.ModelId("m", "2")))
    assert await answer(host) == (3.0, "2")
    assert await answer(host, "1") == (2.0, "1")


@pytest.mark.parametrize("version", ["1", "2"], ids=["replaced", "newer"])
async def test_what_comes_after_a_copy_in_memory_is_loaded_without_a_request(
    host: model_host.ModelHost, storage: helpers.FakeStorage, version: str
) -> None:
    declare(host, storage.put("m/new", times(3)), version)
    await support.wait_until_async(lambda: host.residency.find_ready(model.ModelId("m", version)))
    assert await answer(host) == (3.0, version)


async def test_what_comes_after_an_evicted_copy_answers_its_first_request(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    host.unload(model.ModelId("m", "1"))
    await support.wait_until_async(lambda: not host.residency.find_ready(model.ModelId("m", "1")))
    declare(host, storage.put("m/new", times(3)))
    assert host.residency.find_ready(model.ModelId("m", "1")) is None
    assert await answer(host) == (3.0, "1")
    declare(host, storage.put("m/broken", BROKEN))
    assert await answer(host) == (3.0, "1")


async def test_a_broken_version_never_answers_and_is_told(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("m/2", BROKEN), "2")
    assert await answer(host) == (2.0, "1")
    await support.wait_until_async(lambda: not host.is_ready("m", "2"))
    assert await answer(host) == (2.0, "1")
    assert host.is_ready("m", "")
    assert "SyntaxError" in failure(host, "2")
    with pytest.raises(errors.LoadFailed, match="SyntaxError"):
        await answer(host, "2")
    description = await host.describe("m", "", asyncio.get_running_loop().time() + WAIT_S)
    assert (description.id.version, description.versions) == ("1", ("1", "2"))


async def test_a_worker_that_begins_with_a_broken_version_finds_a_good_one(
    hosting: MakeHost, storage: helpers.FakeStorage
) -> None:
    served = hosting()
    declare(served, storage.put("m/1"))
    declare(served, storage.put("m/2", BROKEN), "2")
    declare(served, str(storage.folder / "missing"), "3")
    assert await answer(served) == (2.0, "1")
    helpers.apply(served, catalog.AliasSet("stable", "m"))
    assert await answer(served, name="stable") == (2.0, "1")
    helpers.apply(served, catalog.AliasSet("next", "m", "2"))
    with pytest.raises(errors.LoadFailed, match="SyntaxError"):
        await answer(served, name="next")


async def test_the_error_is_the_newest_versions_if_all_fail(
    hosting: MakeHost, storage: helpers.FakeStorage
) -> None:
    served = hosting()
    declare(served, str(storage.folder / "missing"))
    declare(served, storage.put("m/2", BROKEN), "2")
    for _ in range(2):
        with pytest.raises(errors.LoadFailed, match="SyntaxError"):
            await answer(served)
    assert not served.is_ready("m", "")


async def test_a_replaced_model_answers_until_the_new_one_is_loaded(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    declare(host, storage.put("m/new", times(3)))
    for version in ("", "1", ""):
        assert await answer(host, version) == (2.0, "1")
    storage.gate.set()
    await support.wait_until_async(lambda: host.residency.find_ready(model.ModelId("m")))
    assert await answer(host) == (3.0, "1")
    await support.wait_until_async(lambda: len(host.residency.copies) == 1)


async def test_a_broken_replacement_leaves_what_was_and_is_told(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("m/new", BROKEN))
    assert await answer(host) == (2.0, "1")
    await support.wait_until_async(lambda: not host.is_ready("m", "1"))
    assert await answer(host) == await answer(host, "1") == (2.0, "1")
    assert host.is_ready("m", "")
    assert failure(host).endswith("(requests go to the model that it was to replace)")
    assert not any("/" in id_.version for id_ in host.take_changed() | set(host.take_measured()))
    declare(host, storage.put("m/newer", times(5)))
    await answer(host)
    await support.wait_until_async(lambda: host.residency.find_ready(model.ModelId("m")))
    assert await answer(host) == (5.0, "1")


async def test_an_alias_of_a_version_answers_while_that_is_replaced(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    helpers.apply(host, catalog.AliasSet("prod", "m", "1"))
    declare(host, storage.put("m/new", BROKEN))
    for _ in range(2):
        assert await answer(host, name="prod") == (2.0, "1")
        await support.wait_until_async(lambda: not host.is_ready("m", "1"))
    declare(host, storage.put("m/newer", times(5)))
    await answer(host, name="prod")
    await support.wait_until_async(lambda: host.residency.find_ready(model.ModelId("m")))
    assert await answer(host, name="prod") == (5.0, "1")


@pytest.mark.parametrize("is_withdrawn", [False, True])
async def test_an_alias_answers_as_before_until_its_new_meaning_loads(
    host: model_host.ModelHost, storage: helpers.FakeStorage, *, is_withdrawn: bool
) -> None:
    first, second = model.ModelId("m", "1"), model.ModelId("m", "2")
    helpers.apply(host, catalog.AliasSet("prod", "m", "1"))
    assert await answer(host, name="prod") == (2.0, "1")
    helpers.apply(
        host,
        *([catalog.ModelWithdrawn(first)] if is_withdrawn else []),
        *helpers.declared(helpers.spec("m", storage.put("m/2", BROKEN), "2")),
        catalog.AliasSet("prod", "m", "2", (first,)),
    )
    for _ in range(3):
        assert await answer(host, name="prod") == (2.0, "1")
    with pytest.raises(errors.LoadFailed):
        await answer(host, "2", name="prod")
    third = model.ModelId("m", "3")
    declare(host, storage.put("m/3", times(3)), "3")
    helpers.apply(host, catalog.AliasSet("prod", "m", "3", (second, first)))
    assert await answer(host, name="prod") == (2.0, "1"), "nobody waits for the new meaning"
    await support.wait_until_async(lambda: host.residency.find_ready(third) is not None)
    assert await answer(host, name="prod") == (3.0, "3")


async def test_an_alias_of_another_model_moves_when_that_has_loaded(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    helpers.apply(host, catalog.AliasSet("prod", "m", ""))
    assert await answer(host, name="prod") == (2.0, "1")
    declare(host, storage.put("other", times(7)), name="other")
    helpers.apply(host, catalog.AliasSet("prod", "other", "", (model.ModelId("m", "1"),)))
    assert await answer(host, name="prod") == (2.0, "1")
    other = model.ModelId("other")
    await support.wait_until_async(lambda: host.residency.find_ready(other) is not None)
    assert await answer(host, name="prod") == (7.0, "1")


async def test_an_alias_of_a_broken_model_answers_with_the_model_before(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("other", BROKEN), name="other")
    gone = model.ModelId("gone", "1")
    before = (gone, model.ModelId("m", "1"))
    helpers.apply(host, catalog.AliasSet("prod", "other", "1", before))
    assert await answer(host, name="prod") == (2.0, "1")
    helpers.apply(host, catalog.AliasSet("prod", "other", "1", (gone,)))
    with pytest.raises(errors.LoadFailed, match="SyntaxError"):
        await answer(host, name="prod")


async def test_a_missing_replacement_leaves_what_was(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, str(storage.folder / "missing"))
    for _ in range(3):
        assert await answer(host) == (2.0, "1")


async def test_what_was_replaced_is_loaded_again_if_its_source_still_has_it(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("m/new", BROKEN))
    host.unload(model.ModelId("m"))
    await support.wait_until_async(lambda: not any(host.residency.account.booked))
    assert await answer(host) == (2.0, "1")


async def test_what_was_replaced_in_place_is_gone_once_it_left_memory(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("m/1", BROKEN) + "/")
    assert await answer(host) == (2.0, "1")
    host.unload(model.ModelId("m"))
    await support.wait_until_async(lambda: not any(host.residency.account.booked))
    with pytest.raises(errors.LoadFailed, match="SyntaxError"):
        await answer(host)


async def test_an_unloaded_model_answers_nothing_until_it_is_loaded(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("m/2", times(3)), "2")
    first = helpers.spec("m", str(storage.folder / "m/1"), unloaded=True)
    second = helpers.spec("m", str(storage.folder / "m/2"), "2", unloaded=True)
    helpers.apply(host, *helpers.declared(first))
    assert await answer(host) == (3.0, "2")
    helpers.apply(host, *helpers.declared(second))
    for version in ("", "1", "2"):
        with pytest.raises(errors.ModelNotFound, match="is unloaded: load it first"):
            await answer(host, version)
        with pytest.raises(errors.ModelNotFound):
            host.is_ready("m", version)
    declare(host, str(storage.folder / "m/1"))
    assert await answer(host) == (2.0, "1")


async def test_a_withdrawn_model_goes_with_what_it_was(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage.put("m/new", BROKEN))
    helpers.apply(host, catalog.ModelWithdrawn(model.ModelId("m")))
    with pytest.raises(errors.ModelNotFound):
        await answer(host)
    await support.wait_until_async(lambda: not host.residency.copies)


async def test_no_request_fails_while_versions_come_and_fail(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    answers: set[tuple[float, str]] = set()
    is_over = asyncio.Event()

    async def ask() -> None:
        while not is_over.is_set():
            answers.add(await answer(host))

    asking = [tasks.spawn(ask(), "ask", is_awaited=True) for _ in range(4)]
    for number, source in enumerate((BROKEN, times(3), BROKEN, "", times(4)), 2):
        declare(host, storage.put(f"v{number}", source), "2")
        declare(host, storage.put(f"w{number}", source), str(number))
        await support.wait_until_async(lambda: not host._leases._trials)
        await asyncio.sleep(0.05)
    await support.wait_until_async(lambda: (4.0, "6") in answers)
    is_over.set()
    await asyncio.gather(*asking)
    assert answers <= {(2.0, "1"), (3.0, "2"), (3.0, "3"), (4.0, "2"), (4.0, "6")}

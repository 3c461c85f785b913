from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import catalog, model
from meshserve.protocol import inference
from meshserve.worker.models import model_host
from tests.worker import helpers

ID = model.ModelId("m")


@pytest.fixture
async def host(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> model_host.ModelHost:
    new_host = hosting()
    m, other = storage.put("m"), storage.put("other", helpers.DOUBLED.replace("* 2", "* 5"))
    helpers.apply(
        new_host,
        *helpers.declared(
            helpers.spec("m", m),
            helpers.spec("m", other, "2"),
            helpers.spec("alone", m, batching=False),
        ),
    )
    return new_host


def call(
    name: str = "m",
    version: str = "",
    rows: list[float | list[int]] | tuple[tuple[float, float]] = ((1.0, 2.0),),
    outputs: tuple[Any, ...] = (),
) -> inference.InferCall:
    tensor = inference.WireTensor("FP32", np.array(rows, np.float32))
    return inference.InferCall(name, version, "7", {"x": tensor}, outputs)


async def reply_of(host: model_host.ModelHost, call_: inference.InferCall, expires_s: float) -> Any:
    """Return the reply, whether it comes at once or later."""
    outcome = host.infer(call_, expires_s)
    return outcome if isinstance(outcome, inference.InferReply) else await outcome


def later() -> float:
    return asyncio.get_running_loop().time() + 20


@pytest.mark.parametrize(("version", "factor"), [("1", 2), ("2", 5), ("", 5)])
async def test_a_version_answers(host: model_host.ModelHost, version: str, factor: int) -> None:
    reply = await reply_of(host, call(version=version), later())
    assert (reply.model, reply.version, reply.id) == ("m", version or "2", "7")
    assert reply.outputs["y"].tolist() == [[factor, 2 * factor]]


async def test_every_lease_ends(host: model_host.ModelHost) -> None:
    await reply_of(host, call(version="1"), later())
    for wrong, error in (
        (call(rows=[1.0]), errors.InvalidRequest),
        (call(rows=[[-1, 0]]), errors.ModelRaised),
    ):
        wrong.version = "1"
        with pytest.raises(error):
            await reply_of(host, wrong, later())
    assert all(copy.leases == 0 for copy in host.residency.copies.values())
    counts = host.stats[ID]
    assert (counts.success.count, counts.failure.count, counts.rows) == (1, 2, 1)


async def test_a_quick_run_of_a_ready_copy_is_answered_at_once(host: model_host.ModelHost) -> None:
    assert not isinstance(await later_reply(host), inference.InferReply)
    stats, hits = host.stats[ID], host.residency.counts.hits
    host.take_load()
    helpers.make_quick(host, ID)
    reply = host.infer(call(version="1"), later())
    assert isinstance(reply, inference.InferReply)
    assert (reply.model, reply.version, reply.id) == ("m", "1", "7")
    assert reply.outputs["y"].tolist() == [[2, 4]]
    assert (stats.success.count, stats.rows) == (3, 3)
    assert (host.residency.counts.hits, host.take_load()[ID].requests) == (hits + 1, 1)
    assert all(copy.leases == 0 for copy in host.residency.copies.values())


async def later_reply(host: Any) -> Any:
    """Infer twice, the second time with the copy ready; return what the second call returned."""
    await reply_of(host, call(version="1"), later())
    outcome = host.infer(call(version="1"), later())
    await outcome
    return outcome


async def test_a_run_in_a_thread_holds_a_lease_until_its_end(host: model_host.ModelHost) -> None:
    await reply_of(host, call(version="1"), later())
    outcome = host.infer(call(version="1"), later())
    assert not isinstance(outcome, inference.InferReply)
    [copy] = host.residency.copies.values()
    assert copy.leases == 1
    await outcome
    assert copy.leases == 0


async def test_uses_are_recorded_before_the_next_event(host: model_host.ModelHost) -> None:
    await reply_of(host, call(version="1"), later())
    helpers.make_quick(host, ID)
    [copy] = host.residency.copies.values()
    uses = copy.uses
    for _ in range(5):
        host.infer(call(version="1"), later())
    assert copy.uses == uses
    await host.ensure_loaded(ID, 20)
    assert copy.uses == pytest.approx(uses + 6, abs=0.1)


async def test_a_name_that_changes_its_meaning_is_looked_up_anew(
    host: model_host.ModelHost,
) -> None:
    await reply_of(host, call(version="1"), later())
    helpers.make_quick(host, ID)
    reply = host.infer(call(version="1"), later())
    assert isinstance(reply, inference.InferReply)
    assert reply.outputs["y"].tolist() == [[2, 4]]
    helpers.apply(host, catalog.ModelWithdrawn(ID))
    with pytest.raises(errors.ModelNotFound):
        host.infer(call(version="1"), later())


@pytest.mark.parametrize(
    ("rows", "error"), [([1.0], errors.InvalidRequest), ([[-1, 0]], errors.ModelRaised)]
)
async def test_a_quick_run_that_fails_is_counted_once(
    host: model_host.ModelHost, rows: list[float | list[int]], error: type[errors.MeshError]
) -> None:
    await reply_of(host, call(version="1"), later())
    helpers.make_quick(host, ID)
    host.take_load()
    hits = host.residency.counts.hits
    with pytest.raises(error):
        host.infer(call(version="1", rows=rows), later())
    assert host.stats[ID].failure.count == 1
    assert (host.residency.counts.hits, host.take_load()[ID].requests) == (hits + 1, 1)


async def test_many_together_get_their_own_rows(host: model_host.ModelHost) -> None:
    replies = await asyncio.gather(
        *(
            reply_of(host, call(version="1", rows=[[n, n]] * (n % 3 + 1)), later())
            for n in range(60)
        )
    )
    assert [reply.outputs["y"].tolist() for reply in replies] == [
        [[2 * n, 2 * n]] * (n % 3 + 1) for n in range(60)
    ]
    counts = host.stats[ID]
    assert counts.success.count == 60
    assert counts.computed.count < 60


async def test_unknown_models_are_not_found(host: model_host.ModelHost) -> None:
    for name, version in (("nobody", ""), ("m", "9")):
        with pytest.raises(errors.ModelNotFound):
            await reply_of(host, call(name, version), later())
        with pytest.raises(errors.ModelNotFound):
            host.is_ready(name, version)
    assert not host.stats


async def test_a_description_is_of_the_loaded_model(host: model_host.ModelHost) -> None:
    about = await host.describe("m", "1", later())
    assert (about.id, about.versions, about.platform, about.max_batch_size) == (
        ID,
        ("1", "2"),
        "python",
        256,
    )
    assert about.signature.inputs == (model.TensorSpec("x", "FP32", (-1, 2)),)
    assert (await host.describe("alone", "", later())).max_batch_size == 0


async def test_statistics_are_of_one_version_or_all(host: model_host.ModelHost) -> None:
    await reply_of(host, call(version="1"), later())
    [only] = host.statistics("m", "1")
    assert (only.id, only.counts.success.count) == (ID, 1)
    assert only.footprint.host_bytes > 0
    assert [entry.id.version for entry in host.statistics("m", "")] == ["1", "2"]


async def test_readiness_is_lost_with_a_failed_load(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    assert host.is_ready("m", "1")
    storage.failure = errors.LoadFailed("gone")
    with pytest.raises(errors.LoadFailed):
        await reply_of(host, call(version="1"), later())
    assert not host.is_ready("m", "1")
    assert host.is_ready("m", "2")

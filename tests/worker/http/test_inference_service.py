from __future__ import annotations

import asyncio

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference
from meshserve.worker.http import inference_service
from meshserve.worker.models import batcher
from tests.worker import bench

ID = model.ModelId("m")


@pytest.fixture
async def host(hosting, shelf):
    made = hosting()
    m, other = shelf.put("m"), shelf.put("other", bench.DOUBLED.replace("* 2", "* 5"))
    bench.told(
        made,
        *bench.declared(
            bench.spec("m", m), bench.spec("m", other, "2"), bench.spec("alone", m, batching=False)
        ),
    )
    return made


def call(name="m", version="", rows=((1.0, 2.0),), outputs=()):
    tensor = inference.WireTensor("FP32", np.array(rows, np.float32))
    return inference.InferCall(name, version, "7", {"x": tensor}, outputs)


def later():
    return asyncio.get_running_loop().time() + 20


@pytest.mark.parametrize(("version", "factor"), [("1", 2), ("2", 5), ("", 5)])
async def test_a_version_answers(host, version, factor):
    reply = await inference_service.InferenceService(host).infer(call(version=version), later())
    assert (reply.model, reply.version, reply.id) == ("m", version or "2", "7")
    assert reply.outputs["y"].tolist() == [[factor, 2 * factor]]


async def test_every_lease_ends(host):
    on = inference_service.InferenceService(host)
    await on.infer(call(version="1"), later())
    for wrong, error in (
        (call(rows=[1.0]), errors.InvalidRequest),
        (call(rows=[[-1, 0]]), errors.ModelRaised),
    ):
        wrong.version = "1"
        with pytest.raises(error):
            await on.infer(wrong, later())
    assert all(copy.leases == 0 for copy in host.residency.copies.values())
    counts = host.tallies[ID]
    assert (counts.success.count, counts.failure.count, counts.rows) == (1, 2, 1)


def make_quick(host, id_):
    """Have the model's runs look as short as a tiny model's."""
    resident = host.at_hand(id_)
    resident.runner = batcher.Batcher(
        resident.made.loaded, batcher.BatchLimits(1, 8, 1), pool=None, run_s=1e-6
    )


async def test_what_is_here_and_quick_is_answered_at_once(host):
    on = inference_service.InferenceService(host)
    assert on.infer_now(call(version="1")) is None
    await on.infer(call(version="1"), later())
    assert on.infer_now(call(version="1")) is None
    counts, hits, asked = host.tallies[ID], host.residency.counts.hits, host.asked[ID]
    make_quick(host, ID)
    reply = on.infer_now(call(version="1"))
    assert (reply.model, reply.version, reply.id, reply.outputs["y"].tolist()) == (
        "m",
        "1",
        "7",
        [[2, 4]],
    )
    assert (counts.success.count, counts.rows, host.residency.counts.hits, host.asked[ID]) == (
        2,
        2,
        hits + 1,
        asked + 1,
    )
    assert all(copy.leases == 0 for copy in host.residency.copies.values())


@pytest.mark.parametrize(
    ("rows", "error"), [([1.0], errors.InvalidRequest), ([[-1, 0]], errors.ModelRaised)]
)
async def test_what_fails_at_once_is_not_counted(host, rows, error):
    on = inference_service.InferenceService(host)
    await on.infer(call(version="1"), later())
    make_quick(host, ID)
    hits = host.residency.counts.hits
    with pytest.raises(error):
        on.infer_now(call(version="1", rows=rows))
    assert (host.tallies[ID].failure.count, host.asked[ID], host.residency.counts.hits) == (
        0,
        1,
        hits,
    )


async def test_many_together_get_their_own_rows(host):
    on = inference_service.InferenceService(host)
    replies = await asyncio.gather(
        *(on.infer(call(version="1", rows=[[n, n]] * (n % 3 + 1)), later()) for n in range(60))
    )
    assert [reply.outputs["y"].tolist() for reply in replies] == [
        [[2 * n, 2 * n]] * (n % 3 + 1) for n in range(60)
    ]
    counts = host.tallies[ID]
    assert counts.success.count == 60
    assert counts.computed.count < 60


async def test_what_is_unknown_is_not_found(host):
    on = inference_service.InferenceService(host)
    for name, version in (("nobody", ""), ("m", "9")):
        with pytest.raises(errors.ModelNotFound):
            await on.infer(call(name, version), later())
        with pytest.raises(errors.ModelNotFound):
            on.is_ready(name, version)
    assert not host.tallies


async def test_a_description_is_of_the_loaded_model(host):
    on = inference_service.InferenceService(host)
    about = await on.described("m", "1", later())
    assert (about.id, about.versions, about.platform, about.max_batch_size) == (
        ID,
        ("1", "2"),
        "python",
        256,
    )
    assert about.signature.inputs == (model.TensorSpec("x", "FP32", (-1, 2)),)
    assert (await on.described("alone", "", later())).max_batch_size == 0


async def test_statistics_are_of_one_version_or_all(host):
    on = inference_service.InferenceService(host)
    await on.infer(call(version="1"), later())
    [only] = on.statistics("m", "1")
    assert (only.id, only.counts.success.count) == (ID, 1)
    assert only.footprint.host_bytes > 0
    assert [each.id.version for each in on.statistics("m", "")] == ["1", "2"]


async def test_readiness_is_lost_with_a_failed_load(host, shelf):
    on = inference_service.InferenceService(host)
    assert on.is_ready("m", "1")
    shelf.failure = errors.LoadFailed("gone")
    with pytest.raises(errors.LoadFailed):
        await on.infer(call(version="1"), later())
    assert not on.is_ready("m", "1")
    assert on.is_ready("m", "2")

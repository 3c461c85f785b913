"""Copies that leave and come back without being loaded again, and the files that they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meshserve import tasks
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import catalog, model
from meshserve.storage import artifact_store
from meshserve.worker.models import loader, model_host, surroundings
from tests import support
from tests.runtimes.test_onnx import linear
from tests.worker import helpers

WIDTH = 1024
WEIGHTS_BYTES = 4 * WIDTH * WIDTH
ROWS = {"input": np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)}
NAMES = ("a", "b")
BUDGET = model.Footprint(2 << 30)
WAIT_S = 60.0


def save(folder: Path, name: str) -> model.ModelSpec:
    torch.manual_seed(ord(name))
    module = torch.nn.Linear(WIDTH, WIDTH, bias=False).eval()
    batch = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(
        torch.export.export(module, (torch.zeros(2, WIDTH),), dynamic_shapes=batch),
        folder / f"{name}.pt2",
    )
    return model.ModelSpec(model.ModelId(name), str(folder / f"{name}.pt2"))


@pytest.fixture
async def attaching(tmp_path: Path) -> AsyncIterator[model_host.ModelHost]:
    """A host with two models of 4 MiB in a real store."""
    first = model_host.ModelHost(
        helpers.settings(memory=BUDGET),
        surroundings.Surroundings(
            artifact_store.ArtifactStore(str(tmp_path / "cache"), 1 << 30, 1 << 30, settle_s=0.0)
        ),
    )
    helpers.apply(first, *helpers.declared(*(save(tmp_path, name) for name in NAMES)))
    yield first
    await first.close()


async def answer(host: model_host.ModelHost, name: str) -> tuple[bytes, loader.LoadedCopy]:
    resident = await host.lease(model.ModelId(name), asyncio.get_running_loop().time() + WAIT_S)
    given = resident.loaded_copy.loaded.predict(ROWS, ())["output"].tobytes()
    host.release(resident)
    return given, resident.loaded_copy


async def unload(host: model_host.ModelHost, name: str) -> None:
    host.unload(model.ModelId(name))
    await support.wait_until_async(
        lambda: not host.footprint(model.ModelId(name)).host_bytes, 10, "it has left"
    )


async def test_a_model_that_comes_back_is_attached_and_answers_the_same(
    attaching: model_host.ModelHost,
) -> None:
    given, first = await answer(attaching, "a")
    for _ in range(3):
        await unload(attaching, "a")
        again, attached = await answer(attaching, "a")
        assert again == given
        assert attached.loaded is first.loaded
        assert attached.load_s < first.load_s
    attaching.residency.check()


async def test_a_mapped_model_has_its_whole_size_booked_and_needs_no_extra_to_attach(
    attaching: model_host.ModelHost,
) -> None:
    _, first = await answer(attaching, "a")
    assert first.mapped_bytes == WEIGHTS_BYTES
    assert attaching.footprint(model.ModelId("a")).host_bytes >= WEIGHTS_BYTES
    copy = next(iter(attaching.residency.copies.values()))
    assert copy.load_extra_bytes > WEIGHTS_BYTES
    await unload(attaching, "a")
    assert copy.load_extra_bytes == 0
    assert copy.need.host_bytes >= WEIGHTS_BYTES


async def test_detached_models_are_closed_when_memory_is_short(
    attaching: model_host.ModelHost,
) -> None:
    _, first = await answer(attaching, "a")
    copy = next(iter(attaching.residency.copies.values()))
    await unload(attaching, "a")
    ticking = tasks.spawn(attaching.run(), "run", is_awaited=True)
    attaching._effects.memory.mapped_bytes = 4 << 30
    await support.wait_until_async(
        lambda: copy.load_extra_bytes > 0, 10, "its load is a whole one again"
    )
    attaching._effects.memory.mapped_bytes = 0
    attaching._handle(ev.MemoryMeasured(0))
    _, again = await answer(attaching, "a")
    ticking.cancel()
    assert again.loaded is not first.loaded


async def test_a_withdrawn_model_is_not_kept_detached(attaching: model_host.ModelHost) -> None:
    await answer(attaching, "a")
    await unload(attaching, "a")
    assert attaching.effects.detached_bytes
    helpers.apply(attaching, catalog.ModelWithdrawn(model.ModelId("a")))
    ticking = tasks.spawn(attaching.run(), "run", is_awaited=True)
    await support.wait_until_async(
        lambda: not attaching._effects._recipes, 10, "its recipe is forgotten"
    )
    ticking.cancel()
    assert not attaching.effects.detached_bytes


def held(folder: Path) -> list[Path]:
    return list((folder / "cache").glob("seats/*/held/*"))


async def test_a_mapped_file_is_held_while_its_copy_lives(
    attaching: model_host.ModelHost, tmp_path: Path
) -> None:
    await answer(attaching, "a")
    assert len(held(tmp_path)) == 1
    await unload(attaching, "a")
    assert held(tmp_path) == []


async def test_a_small_model_that_needs_its_file_no_more_holds_nothing(
    attaching: model_host.ModelHost, tmp_path: Path
) -> None:
    linear(tmp_path / "tiny.onnx")
    spec = model.ModelSpec(model.ModelId("tiny"), str(tmp_path / "tiny.onnx"))
    helpers.apply(attaching, *helpers.declared(spec))
    await attaching.ensure_loaded(spec.id, WAIT_S)
    assert held(tmp_path) == []


async def test_two_names_of_one_file_are_one_copy_with_one_mapping(
    attaching: model_host.ModelHost, tmp_path: Path
) -> None:
    twin = replace(save(tmp_path, "a"), id=model.ModelId("twin"))
    helpers.apply(attaching, *helpers.declared(twin))
    (_, first), (_, other) = await answer(attaching, "a"), await answer(attaching, "twin")
    assert first.loaded is other.loaded
    assert attaching.effects.memory.mapped_bytes == WEIGHTS_BYTES

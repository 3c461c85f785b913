from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np
import pytest

from meshserve import errors, tasks
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.worker.models import load_queue, loader, process_memory
from tests import support

BIG_BYTES = 96 << 20
NEED = model.Footprint(32 << 20)
ARTIFACT = model_runtime.Artifact(PurePath("/nowhere"), "sha256:0", 1)


class Loaded(model_runtime.LoadedModel):
    signature = model.Signature((), ())

    def __init__(self, size_bytes: int = 0) -> None:
        self.weights = np.ones(size_bytes, np.uint8)
        self.probe = {}
        self.calls = 0

    def predict(self, _inputs: Any, _outputs: Any) -> Any:
        self.calls += 1
        return {}

    def close(self) -> None:
        pass


class Mapped(Loaded):
    """One with weights in a file; `attach` fails where `is_there` is not set."""

    capabilities = model_runtime.Capabilities(can_detach=True, mapped_bytes=BIG_BYTES)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[object] = []
        self.is_there = True

    def detach(self) -> None:
        self.log.append("detach")

    def attach(self, artifact: model_runtime.Artifact) -> None:
        if not self.is_there:
            raise errors.LoadFailed("the file is gone")
        self.log.append(artifact)

    def close(self) -> None:
        self.log.append("close")


class Scripted(model_runtime.Runtime):
    """A runtime whose load is a test's own function."""

    name = "scripted"

    def __init__(self, load: Callable[[], model_runtime.LoadedModel]) -> None:
        self._load = load

    def accepts(self, _artifact: Any) -> Any:
        return True

    def prepare(self, _device: str) -> None:
        pass

    def footprint_hint(self, _artifact: Any, _device: Any) -> Any:
        return NEED

    def load(self, _artifact: model_runtime.Artifact, _spec: model.ModelSpec, _device: str) -> Any:
        return self._load()


def recipe(load: Callable[[], model_runtime.LoadedModel], **fields: Any) -> loader.LoadRecipe:
    return loader.LoadRecipe(
        "key", model.ModelSpec(model.ModelId("m"), "u", **fields), ARTIFACT, Scripted(load), "cpu"
    )


async def test_a_footprint_is_measured() -> None:
    loaded_copy = await load_queue.LoadQueue().load(recipe(lambda: Loaded(BIG_BYTES)), NEED)
    assert BIG_BYTES <= loaded_copy.footprint.host_bytes < BIG_BYTES * 1.5
    assert loaded_copy.is_measured
    assert loaded_copy.load_s > 0
    assert loaded_copy.run_s is not None
    assert isinstance(loaded_copy.loaded, Loaded)
    # A run that took long, because the machine was busy, is the last one.
    assert 1 <= loaded_copy.loaded.calls <= loader.PROBES


async def test_a_small_copy_has_a_footprint_too() -> None:
    loaded_copy = await load_queue.LoadQueue().load(recipe(Loaded), NEED)
    assert process_memory.COPY_BYTES_MIN <= loaded_copy.footprint.host_bytes < 8 << 20


async def test_loads_that_overlap_are_booked_as_expected() -> None:
    both = threading.Barrier(2, timeout=20)

    def load() -> Loaded:
        both.wait()
        loaded_copy = Loaded(BIG_BYTES)
        both.wait()
        return loaded_copy

    one = load_queue.LoadQueue()
    makes = await asyncio.gather(one.load(recipe(load), NEED), one.load(recipe(load), NEED))
    assert [(loaded_copy.is_measured, loaded_copy.footprint) for loaded_copy in makes] == [
        (False, NEED)
    ] * 2
    alone = await one.load(recipe(lambda: Loaded(BIG_BYTES)), NEED)
    assert alone.is_measured


async def test_a_load_past_its_timeout_disturbs_no_measurement() -> None:
    stuck = threading.Event()

    def hang() -> Loaded:
        stuck.wait(20)
        return Loaded()

    one = load_queue.LoadQueue()
    hanging = tasks.spawn(
        one.load(recipe(hang, load_timeout_s=0.05), NEED), "load", is_awaited=True
    )
    await asyncio.sleep(0.1)
    loaded_copy = await one.load(recipe(lambda: Loaded(BIG_BYTES)), NEED)
    assert loaded_copy.is_measured
    assert loaded_copy.footprint.host_bytes >= BIG_BYTES
    stuck.set()
    await hanging


def raising(error: BaseException) -> Callable[..., Any]:
    def load() -> None:
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.LoadFailed("größe fehlt"), "größe fehlt"),
        (ValueError("nö"), "ValueError: nö"),
        (SystemExit(3), "SystemExit: 3"),
        (support.Unspeakable(), "Unspeakable: its message can't be read"),
        (MemoryError("all of it"), "MemoryError: all of it"),
    ],
)
async def test_whatever_a_load_raises_is_a_load_failure(error: BaseException, words: str) -> None:
    with pytest.raises(errors.LoadFailed) as caught:
        await load_queue.LoadQueue().load(recipe(raising(error)), NEED)
    assert words in caught.value.message


async def test_the_kind_of_a_failure_stays() -> None:
    with pytest.raises(errors.MissingExtra, match="install it"):
        await load_queue.LoadQueue().load(recipe(raising(errors.MissingExtra("install it"))), NEED)


async def test_a_failed_load_frees_what_it_had_made() -> None:
    loaded_copy = []

    def load() -> NoReturn:
        half = Loaded(1 << 20)
        loaded_copy.append(weakref.ref(half))
        raise ValueError(f"with {half.calls} of it done")

    with pytest.raises(errors.LoadFailed) as caught:
        await load_queue.LoadQueue().load(recipe(load), NEED)
    await support.wait_until_async(
        lambda: gc.collect() is not None and loaded_copy[0]() is None,
        support.WAIT_S,
        "the half-made model is gone",
    )
    assert caught.value.__cause__ is None


async def test_mapped_bytes_are_part_of_the_footprint() -> None:
    loaded_copy = await load_queue.LoadQueue().load(recipe(Mapped), NEED)
    assert loaded_copy.mapped_bytes == BIG_BYTES
    assert BIG_BYTES < loaded_copy.footprint.host_bytes < BIG_BYTES * 1.2
    assert loaded_copy.private_bytes == loaded_copy.footprint.host_bytes - BIG_BYTES


async def left(
    one: load_queue.LoadQueue, load: Callable[[], model_runtime.LoadedModel]
) -> loader.LoadedCopy:
    """A copy that was loaded and let go of, with what is kept of it."""
    loaded_copy = await one.load(recipe(load), NEED)
    one.free(recipe(load), loaded_copy, is_detached=True)
    one.detached.keep("key", loaded_copy)
    return loaded_copy


async def test_a_detached_copy_is_attached_and_not_loaded() -> None:
    one = load_queue.LoadQueue(BIG_BYTES)
    loads: list[Mapped] = []

    def load() -> Mapped:
        loads.append(Mapped())
        return loads[-1]

    loaded_copy = await left(one, load)
    again = await one.load(recipe(load), NEED)
    assert (again.loaded, again.footprint, again.run_s) == (
        loaded_copy.loaded,
        loaded_copy.footprint,
        loaded_copy.run_s,
    )
    assert not again.is_measured
    (mapped,) = loads
    assert (mapped.log, mapped.calls) == (["detach", ARTIFACT], loader.PROBES)
    assert one.detached.size_bytes == 0


async def test_a_copy_that_can_not_be_attached_is_loaded() -> None:
    one = load_queue.LoadQueue(BIG_BYTES)
    loaded_copy = await left(one, Mapped)
    mapped = loaded_copy.loaded
    assert isinstance(mapped, Mapped)
    mapped.is_there = False
    again = await one.load(recipe(Mapped), NEED)
    assert again.loaded is not loaded_copy.loaded
    assert again.is_measured
    assert mapped.log == ["detach", "close"]

"""Loads copies: artifact → runtime → a model in memory, measured, in a thread of its own that may be given up."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshserve import errors
from meshserve.core import model, ports
from meshserve.runtimes import registry
from meshserve.worker import memory

logger = logging.getLogger(__name__)
TURN_S = 0.25
PROBES = 3
"""Runs of made-up inputs after a load; the quickest tells how long the model takes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a copy is made of. Equal keys mean equal copies."""

    key: str
    spec: model.ModelSpec
    artifact: ports.Artifact
    runtime: ports.Runtime
    device: str


@dataclass(frozen=True, slots=True)
class Made:
    """A copy that was just loaded.

    `run_s` is how long one made-up row takes, if one could be made up. `is_measured`: no other load ran beside it.
    """

    loaded: ports.LoadedModel
    footprint: model.Footprint
    load_s: float
    run_s: float | None
    is_measured: bool


def recipe(spec: model.ModelSpec, artifact: ports.Artifact, device: str) -> Recipe:
    """How to load the spec's artifact. Raises LoadFailed where no runtime takes it."""
    runtime = registry.find(spec, artifact)
    shape = [_tensors(spec.inputs), _tensors(spec.outputs), spec.batching, spec.max_batch_size]
    identity = json.dumps([runtime.name, device, spec.trust, shape, dict(spec.options)], sort_keys=True, default=str)
    return Recipe(f"{artifact.digest}/{hashlib.sha256(identity.encode()).hexdigest()[:12]}", spec, artifact, runtime, device)


def _tensors(specs: tuple[model.TensorSpec, ...]) -> list[list[object]]:
    return [[spec.name, spec.datatype, list(spec.shape)] for spec in specs]


@dataclass(slots=True, eq=False)
class _Window:
    """The time of one load, until when it counts, what was freed within it, and whether another load fell into it."""

    until_s: float
    is_disturbed: bool = False
    freed_bytes: int = 0


class Loading:
    """The loads of one process. A footprint is what the process grew by while nothing else was loaded.

    Where something was, the copy takes what it was expected to take, and is measured when it is loaded again. So that this is rare, loads
    that are quick go one after another: in threads side by side they would not be done sooner.
    """

    def __init__(self) -> None:
        self._under_way: set[_Window] = set()
        self._turn = asyncio.Lock()
        self._turn_since_s = 0.0

    def close(self, loaded: ports.LoadedModel) -> None:
        """Give a copy's memory back; what that frees is not taken for a smaller footprint of what is loading meanwhile."""
        before = memory.mark()
        loaded.close()
        freed_bytes = max(0, before.allocated_bytes - memory.mark().allocated_bytes)
        for window in self._under_way:
            window.freed_bytes += freed_bytes

    async def load(self, recipe: Recipe, need: model.Footprint) -> Made:
        """Load in a thread of its own. Raises LoadFailed with a reason for the user, whatever went wrong."""
        has_turn = await self._had_turn()
        window = self._enter(recipe.spec.load_timeout_s)
        try:
            return await _in_thread(lambda: _make(recipe, need, window))
        finally:
            self._under_way.discard(window)
            if has_turn:
                self._turn.release()

    async def _had_turn(self) -> bool:
        """Whether those before ended soon. A load that takes long is overtaken, and those who overtake it are not measured."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._turn_since_s + TURN_S):
                    await self._turn.acquire()
            except TimeoutError:
                if loop.time() >= self._turn_since_s + TURN_S:
                    return False
            else:
                self._turn_since_s = loop.time()
                return True

    def _enter(self, timeout_s: float) -> _Window:
        """Begin a load's time. One that is over its time may hang for ever: it disturbs nobody."""
        now_s = time.monotonic()
        others = [each for each in self._under_way if each.until_s > now_s]
        for other in others:
            other.is_disturbed = True
        window = _Window(now_s + timeout_s, is_disturbed=bool(others))
        self._under_way.add(window)
        return window


def _make(recipe: Recipe, need: model.Footprint, window: _Window) -> Made:
    try:
        recipe.runtime.prepare(recipe.device)
        before = memory.mark()
        began_s = time.perf_counter()
        loaded = recipe.runtime.load(recipe.artifact, recipe.spec, recipe.device)
        load_s = time.perf_counter() - began_s
        run_s = _timed(loaded)
    except errors.LoadFailed:
        raise
    except Exception as error:  # a library may raise anything on a user's file, and the user must hear it
        raise errors.LoadFailed(f"{type(error).__name__}: {error}") from error
    grown_bytes = memory.grown_bytes(before, window.freed_bytes)
    host_bytes = need.host_bytes if window.is_disturbed else grown_bytes
    gpu_bytes = int(getattr(loaded, "gpu_bytes", need.gpu_bytes))
    return Made(loaded, model.Footprint(host_bytes, gpu_bytes), load_s, run_s, is_measured=not window.is_disturbed)


def _timed(loaded: ports.LoadedModel) -> float | None:
    probe: Mapping[str, object] | None = getattr(loaded, "probe", None)
    if probe is None:
        return None
    took_s = []
    for _ in range(PROBES):
        began_s = time.perf_counter()
        loaded.predict(probe, ())  # type: ignore[arg-type]
        took_s.append(time.perf_counter() - began_s)
    return min(took_s)


async def _in_thread(make: Callable[[], Made]) -> Made:
    """A daemon thread for this one call: one that hangs can be given up without holding a pool's place or the process's end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Made] = loop.create_future()

    def settle(made: Made | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        elif made is not None:
            answer.set_result(made)

    def run() -> None:
        try:
            made = make()
        except BaseException as error:  # even SystemExit of a user's code belongs to the load, not to the thread
            logger.info("a load failed", exc_info=error)
            loop.call_soon_threadsafe(settle, None, _bare(error))
        else:
            loop.call_soon_threadsafe(settle, made, None)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await answer


def _bare(error: BaseException) -> errors.MeshError:
    """What is to be told of a failure, without its traceback: that would keep all that the load had made until then."""
    if isinstance(error, errors.MeshError):
        return type(error)(error.message, retry_after_s=error.retry_after_s)
    return errors.LoadFailed(repr(error))

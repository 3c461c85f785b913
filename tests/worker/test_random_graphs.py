"""Programs that a generator draws, asked by 16 callers at once: every answer is the library's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from meshserve import errors
from meshserve.core.values import catalog, model
from meshserve.protocol import inference
from meshserve.worker.models import batcher, joining
from tests import support
from tests.runtimes import onnx_drawing, random_onnx, random_torch
from tests.worker import helpers

Arrays = Mapping[str, np.ndarray]
CALLERS = 16
REQUESTS = 10_000
WAVES, PER_CALLER = 3, 2
"""Requests of each caller to each model: the first wave begins the proof, the others are joined."""

FORMATS = ("onnx", "onnx", "onnx", "script", "trace", "export")
JOINED_MIN = 20


@dataclass(frozen=True)
class Program:
    """A model's folder, its inputs, and what its own library answers."""

    folder: Path
    drawing: onnx_drawing.Drawing | random_torch.Drawing
    native: Callable[[Arrays], np.ndarray]
    inputs: tuple[model.TensorSpec, ...] = ()

    def feed(self, numbers: np.random.Generator) -> dict[str, np.ndarray]:
        rows, scale = int(numbers.integers(1, 12)), float(numbers.choice([0.3, 3.0, 30.0]))
        return onnx_drawing.make_inputs(self.drawing.inputs, rows, numbers, scale)

    def answer(self, feed: Arrays) -> np.ndarray | None:
        """Return the library's own answer, or None if it refuses the inputs."""
        try:
            return self.native(feed)
        except Exception:  # noqa: BLE001 a library may raise anything for what it can't take
            return None


@dataclass
class Asked:
    """What callers asked of all models, which answers were wrong, and which models were joined."""

    count: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    models: int = 0
    joined: list[str] = field(default_factory=list)
    shared: int = 0
    unloaded: list[str] = field(default_factory=list)


def draw_program(seed: int, folder: Path) -> Program:
    """Return a program of a seed. Raises Unfit if its library takes none of it."""
    form = FORMATS[seed % len(FORMATS)]
    if form == "onnx":
        drawing = random_onnx.draw(seed, 2 + seed % 5)
        path = folder / "model.onnx"
        random_onnx.save(drawing, path)
        session = onnxruntime.InferenceSession(str(path), onnx_drawing.quiet())
        return Program(folder, drawing, lambda feed: np.asarray(session.run(None, dict(feed))[0]))
    program = random_torch.draw(seed, 2 + seed % 4)
    call = random_torch.save(
        program, folder / ("model.pt2" if form == "export" else "model.pt"), form
    )

    def native(feed: Arrays) -> np.ndarray:
        with torch.inference_mode():
            tensors = [torch.from_numpy(feed[name].copy()) for name in program.inputs]
            return np.array(call(*tensors).numpy())

    datatypes = {"f": "FP32", "i": "INT64"}
    declared = tuple(
        model.TensorSpec(name, datatypes[kind], (-1, *sizes))
        for name, (kind, sizes) in program.inputs.items()
    )
    return Program(folder, program, native, declared if form != "export" else ())


def is_right(answer: np.ndarray | None, expected: np.ndarray | None) -> bool:
    """Return whether an answer is the library's, but for the rounding of another batch size."""
    if answer is None or expected is None:
        return answer is expected
    if answer.shape != expected.shape:
        return False
    if expected.dtype.kind != "f":
        return np.array_equal(answer, expected)
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    return np.allclose(answer, expected, rtol=1e-3, atol=1e-4 * max(1.0, largest), equal_nan=True)


async def ask(host: Any, program: Program, asked: Asked, seed: int) -> None:
    """Ask one model a few times, each time with other rows, and compare each answer."""
    numbers = np.random.default_rng(seed)
    name = program.folder.name
    for _ in range(PER_CALLER):
        feed = program.feed(numbers)
        tensors = {
            key: inference.WireTensor("FP32" if array.dtype.kind == "f" else "INT64", array)
            for key, array in feed.items()
        }
        call = inference.InferCall(name, "", "", tensors)
        try:
            outcome = host.infer(call, asyncio.get_running_loop().time() + 60)
            reply = outcome if isinstance(outcome, inference.InferReply) else await outcome
            answer = next(iter(reply.outputs.values()))
        except (errors.ModelRaised, errors.InvalidRequest):
            answer = None
        asked.count += 1
        if not is_right(answer, program.answer(feed)):
            asked.wrong[name] += 1


async def serve_and_ask(host: Any, program: Program, asked: Asked) -> None:
    """Serve one model, and let all callers ask it at once, in waves."""
    name = program.folder.name
    spec = model.ModelSpec(model.ModelId(name), str(program.folder), inputs=program.inputs)
    helpers.apply(host, catalog.ModelDeclared(spec))
    try:
        await host.ensure_loaded(spec.id, 60)
    except errors.LoadFailed as refused:
        asked.unloaded.append(f"{name}: {refused.message}")
        return
    joined = host._effects.resident(host.residency.find_ready(spec.id)).batcher.joining
    for wave in range(WAVES):
        seeds = range(wave * CALLERS, (wave + 1) * CALLERS)
        await asyncio.gather(*(ask(host, program, asked, seed) for seed in seeds))
        await support.wait_until_async(lambda: joined.state is not joining.JoinState.PROVING)
    asked.models += 1
    stats = host.stats[spec.id]
    if joined.state is joining.JoinState.JOINED:
        asked.joined.append(name)
        asked.shared += stats.success.count - stats.computed.count
    host.unload(spec.id)
    helpers.apply(host, catalog.ModelWithdrawn(spec.id))


def is_repeatable(program: Program) -> bool:
    """Return whether the library answers and answers the same twice: not if it draws numbers."""
    feed = program.feed(np.random.default_rng(0))
    first, second = program.answer(feed), program.answer(feed)
    return first is not None and is_right(second, first)


async def serve_drawn(host: Any, seed: int, folder: Path, asked: Asked) -> None:
    try:
        program = draw_program(seed, folder)
    except (onnx_drawing.Unfit, IndexError):
        return
    except Exception as error:
        # ONNX Runtime has no common class for what it raises of a graph that does not fit together.
        if type(error).__module__.startswith("onnxruntime"):
            return
        raise
    if is_repeatable(program):
        await serve_and_ask(host, program, asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of what the generator draws
@pytest.mark.timeout(600)
async def test_no_answer_of_a_random_program_depends_on_what_others_asked(
    hosting: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small programs are too quick to let requests wait; none is quick enough for the event loop.
    monkeypatch.setattr(batcher, "QUICK_RUN_S", 0.0)
    host, asked, seed = hosting(), Asked(), 0
    while asked.count < REQUESTS:
        form = FORMATS[seed % len(FORMATS)]
        folder = tmp_path / f"{form}-{seed}"
        folder.mkdir()
        await serve_drawn(host, seed, folder, asked)
        seed += 1
    # The figures for whoever asks with -s.
    print(  # noqa: T201
        f"{asked.count} answers of {asked.models} models; {len(asked.joined)} were joined, "
        f"which saved {asked.shared} runs: {Counter(name.split('-')[0] for name in asked.joined)}"
    )
    print(*asked.unloaded, sep="\n")  # noqa: T201
    assert not asked.wrong
    assert len(asked.joined) >= JOINED_MIN

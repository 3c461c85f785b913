"""Random small graphs of many kinds, asked by 16 callers at once: every answer is the library's."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from meshserve.core.values import catalog, model
from meshserve.protocol import inference
from meshserve.worker.models import joining
from tests.runtimes import onnx_files
from tests.runtimes.onnx_files import FLOAT
from tests.worker import helpers

Arrays = Mapping[str, np.ndarray]
Native = Callable[[Arrays], np.ndarray]
CALLERS = 16
REQUESTS = 10_000
SLOW = 160
"""Multiplications that make each model too slow for the event loop, so that requests queue."""


STEPS = 24
"""Layers that make an ONNX model as slow."""


class Slow(torch.nn.Module):
    """A function of its inputs, and work that changes nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.eye(SLOW) * 0.5)

    def forward(self, *tensors: torch.Tensor) -> Any:
        work: torch.Tensor = self.weight
        for _ in range(6):
            work = work @ self.weight
        return self.function(*tensors) + work[0, 1]


def linear() -> Callable[[torch.Tensor], torch.Tensor]:
    weight = torch.from_numpy(onnx_files.weight(4, 3))
    return lambda x: torch.relu(x @ weight + 0.5)


TORCH: dict[str, Callable[..., Any]] = {
    "linear": linear(),
    "softmax": lambda x: torch.softmax(x * 3, 1),
    "normalised": lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1),
    "running total": lambda x: x.cumsum(0),
    "running maximum": lambda x: x.cummax(0)[0],
    "total of the row": lambda x: x.cumsum(1),
    "centred over all rows": lambda x: x - x.mean(0),
    "scaled if any is big": lambda x: torch.where(x.max() > 1, x / 255, x),
    "difference to the row before": lambda x: x - torch.cat([x[:1], x[:-1]]),
    "causal attention": lambda x: (
        torch.softmax(
            (x @ x.T).masked_fill(torch.ones(64, 64).triu(1)[: x.size(0), : x.size(0)] > 0, -1e9), 1
        )
        @ x
    ),
    "number of rows": lambda x: x * x.size(0),
    "sorted over rows": lambda x: x.sort(0)[0],
    "two inputs by row": lambda x, z: (x * z).sum(1),
    "nearest of the other": lambda x, z: torch.cdist(x, z).argmin(1).float(),
    "paired with all": lambda x, z: x @ (z.T @ z),
    "rows of its own": lambda x: x[x[:, 0] > 0],
    "reversed rows": lambda x: x.flip(0),
}
TWO = {"two inputs by row", "nearest of the other", "paired with all"}


@dataclass(frozen=True)
class Graph:
    """A model's folder, and what its own library answers. `inputs` are its inputs' names."""

    folder: Path
    runtime: str
    native: Native
    inputs: tuple[str, ...] = ("x",)


def save_torch(folder: Path, name: str) -> Graph:
    torch.manual_seed(0)
    module, count = Slow(TORCH[name]).eval(), 2 if name in TWO else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace: Any = torch.jit.trace
        program = trace(module, tuple(torch.randn(5, 4) for _ in range(count)), check_trace=False)
        program.save(str(folder / "model.pt"))

    def native(feed: Arrays) -> np.ndarray:
        with torch.inference_mode():
            answer = program(*(torch.from_numpy(feed[name]) for name in sorted(feed)))
        return np.asarray(answer.numpy())

    return Graph(folder, "torch", native, ("x", "z")[:count])


def node(kind: str, *names: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(names[:-1]), [names[-1]], **attributes)


ONNX: dict[str, list[Any]] = {
    "gemm": [node("Gemm", "x", "w", "b", "r")],
    "softmax": [node("Softmax", "x", "r", axis=1)],
    "softmax over rows": [node("Softmax", "x", "r", axis=0)],
    "running total": [node("CumSum", "x", "zero", "r")],
    "mean of the row": [node("ReduceMean", "x", "m", axes=[1]), node("Sub", "x", "m", "r")],
    "mean of all rows": [node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x", "m", "r")],
    "scaled if any is big": [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m", "limit", "c"),
        node("Div", "x", "scale", "d"),
        node("Where", "c", "d", "x", "r"),
    ],
    "attention over rows": [
        node("Transpose", "x", "t", perm=[1, 0]),
        node("MatMul", "x", "t", "a"),
        node("Softmax", "a", "s", axis=1),
        node("MatMul", "s", "x", "r"),
    ],
    "time first": [
        node("Unsqueeze", "x", "axis", "u"),
        helper.make_node("LSTM", ["u", "W", "R"], ["Y"], hidden_size=4),
        node("Squeeze", "Y", "axes", "r"),
    ],
}


def save_onnx(folder: Path, name: str) -> Graph:
    weights = {
        "w": onnx_files.weight(4, 4),
        "b": onnx_files.weight(4),
        "zero": np.array(0),
        "limit": np.array(1, np.float32),
        "scale": np.array(255, np.float32),
        "axis": np.array([1]),
        "axes": np.array([1, 2]),
        "W": onnx_files.weight(1, 16, 4),
        "R": onnx_files.weight(1, 16, 4, seed=1),
    }
    # A chain of products with the rows themselves makes a request slow, and keeps rows apart.
    wide = onnx_files.weight(4, 900)
    back = onnx_files.weight(900, 900)
    chain = [node("MatMul", "x", "wide", "h0")]
    chain += [node("MatMul", f"h{step}", "back", f"g{step}") for step in range(STEPS)]
    steps = [
        part
        for step in range(STEPS)
        for part in (chain[1 + step], node("Tanh", f"g{step}", f"h{step + 1}"))
    ]
    slow = [
        chain[0],
        *steps,
        node("MatMul", f"h{STEPS}", "nothing", "o"),
        node("Add", "r", "o", "y"),
    ]
    weights |= {"wide": wide, "back": back, "nothing": np.zeros((900, 4), np.float32)}
    path = onnx_files.graph(
        folder / "model.onnx",
        [*ONNX[name], *slow],
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, ["n", 4])],
        weights,
    )
    session = onnxruntime.InferenceSession(str(path))
    return Graph(folder, "onnx", lambda feed: np.asarray(session.run(None, dict(feed))[0]))


@dataclass
class Asked:
    """What callers asked of all models, which answers were wrong, and which models were joined."""

    count: int = 0
    wrong: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)


def is_right(answer: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether an answer is the library's, but for the rounding of another batch size."""
    largest = float(np.abs(expected).max(initial=0.0))
    return answer.shape == expected.shape and np.allclose(
        answer, expected, rtol=1e-3, atol=1e-4 * max(1.0, largest)
    )


async def ask(host: Any, graph: Graph, asked: Asked, seed: int, count: int) -> None:
    """Ask one model `count` times, each time with other rows, and compare each answer."""
    random = np.random.default_rng(seed)
    name = graph.folder.name
    for _ in range(count):
        rows, scale = int(random.integers(1, 4)), random.choice([0.3, 3.0, 300.0])
        feed = {
            input_: (random.standard_normal((rows, 4)) * scale).astype(np.float32)
            for input_ in graph.inputs
        }
        tensors = {key: inference.WireTensor("FP32", array) for key, array in feed.items()}
        outcome = host.infer(
            inference.InferCall(name, "", "", tensors), asyncio.get_running_loop().time() + 60
        )
        reply = outcome if isinstance(outcome, inference.InferReply) else await outcome
        asked.count += 1
        if not is_right(next(iter(reply.outputs.values())), graph.native(feed)):
            asked.wrong.append(name)


async def serve_and_ask(host: Any, graph: Graph, asked: Asked, requests: int) -> None:
    """Serve one model, and let all callers ask it at once."""
    declared = tuple(model.TensorSpec(name, "FP32", (-1, 4)) for name in graph.inputs)
    spec = model.ModelSpec(
        model.ModelId(graph.folder.name),
        str(graph.folder),
        runtime=graph.runtime,
        inputs=declared if graph.runtime == "torch" else (),
    )
    helpers.apply(host, catalog.ModelDeclared(spec))
    callers = (ask(host, graph, asked, seed, requests // CALLERS) for seed in range(CALLERS))
    await asyncio.gather(*callers)
    resident = host._effects.resident(host.residency.find_ready(spec.id))
    if resident.batcher.joining.state is joining.JoinState.JOINED:
        asked.joined.append(graph.folder.name)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_answer_depends_on_what_others_asked(
    hosting: Callable[..., Any], tmp_path: Path
) -> None:
    host, asked = hosting(), Asked()
    requests = REQUESTS // (len(TORCH) + len(ONNX)) + CALLERS
    for save, names in ((save_torch, TORCH), (save_onnx, ONNX)):
        for name in names:
            folder = tmp_path / f"{save.__name__.removeprefix('save_')}-{name.replace(' ', '-')}"
            folder.mkdir()
            await serve_and_ask(host, save(folder, name), asked, requests)
    # The figure for whoever asks with -s.
    print(f"{asked.count} answers; {len(asked.joined)} models joined: {', '.join(asked.joined)}")  # noqa: T201
    assert not asked.wrong
    assert asked.count >= REQUESTS
    assert {"torch-linear", "onnx-gemm"} <= set(asked.joined)

"""Ordinary models of many shapes answer 16 callers at once as each would be answered alone."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference
from meshserve.worker.models import model_host
from tests.worker import helpers

CALLERS = 16

BODIES = {
    "one array": "return x * 2",
    "whole or not": "return x if (x % 1).any() else x.astype(int)",
    "rank by input": "return x.sum() if len(x) == 1 else x",
    "a scalar": "return float(x.sum())",
    "a text": "return 'ü' * len(x)",
    "texts": "return [str(v) for v in x]",
    "a list of lists": "return [[v, v + 1] for v in x.tolist()]",
    "a tuple": "return x, x.sum()",
    "a tuple of numbers": "return (1, 2, 3)",
    "an optional output": "return {'y': x, 'why': None if len(x) % 2 else 'even'}",
    "another output sometimes": "return {'odd': x} if len(x) % 2 else {'even': x[:1]}",
    "a frame": "return pd.DataFrame({'a': x, 'b': [str(v) for v in x]})",
    "a series": "return {'y': pd.Series(x)}",
    "a category": "return {'y': pd.Series([str(v) for v in x], dtype='category')}",
    "missing numbers": "return {'y': pd.Series([1, None] * len(x), dtype='Int64').astype(object)"
    ".where(lambda s: s.notna(), None).tolist()}",
    "booleans": "return x > 1",
    "a sparse matrix": "return sparse.csr_matrix(np.outer(x, x))",
    "a torch tensor": "return torch.from_numpy(x) * 2",
    "a bfloat16 tensor": "return torch.ones(3, dtype=torch.bfloat16)",
    "float16": "return x.astype(np.float16)",
    "empty": "return x[:0]",
    "big-endian": "return x.astype('>f8')",
    "objects": "return np.array([1, 2.5, True], dtype=object)",
}

REFUSED = {
    "unequal lists": "return {'y': [[1], [1, 2]]}",
    "a dictionary in a dictionary": "return {'y': {'a': 1}}",
    "dates": "return np.array(['2024-01-01'], 'M8[D]')",
    "nothing": "return None",
    "a bug": "return x.nothing",
    "masked": "return np.ma.masked_array([1, 2], [True, False])",
}

SOURCE = """
    import numpy as np
    import pandas as pd
    import torch
    from scipy import sparse

    class Model:
        def predict(self, inputs):
            x = inputs["x"].copy()
            {body}
"""


class Tupled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        return x + 1, (x * 2, x.sum())


class Maybe(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        answer = {"y": x * 3}
        if x.size(0) % 2 == 0:
            answer["even"] = x[:1]
        return answer


class Whole(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x == x.round()).all()):
            return x.to(torch.int64)
        return x


class Number(torch.nn.Module):
    def forward(self, x: torch.Tensor, by: float = 2.0) -> float:
        return float(x.sum()) * by


class Listing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [part * 2 for part in x]


PROGRAMS = {
    "tuples": Tupled(),
    "maybe": Maybe(),
    "whole": Whole(),
    "number": Number(),
    "list": Listing(),
}

Answer = dict[str, tuple[str, list[int], Any]]


def x_of(number: int) -> np.ndarray:
    return np.arange(1 + number % 4) + 0.5 * (number % 3 == 0)


async def infer(host: model_host.ModelHost, x: np.ndarray) -> inference.InferReply:
    call = inference.InferCall("m", inputs={"x": inference.WireTensor("FP64", x)})
    reply = host.infer(call, asyncio.get_running_loop().time() + 60)
    return reply if isinstance(reply, inference.InferReply) else await reply


async def ask(host: model_host.ModelHost, x: np.ndarray) -> Answer:
    """Return the outputs as a client gets them."""
    reply = await infer(host, x)
    message = inference.reply_message(reply, is_raw=True)
    return {
        output.name: (output.datatype, list(output.shape), raw)
        for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    }


async def check(host: model_host.ModelHost) -> None:
    """Compare the answers to 16 callers at once with those to one after the other."""
    xs = [x_of(number) for number in range(4 * CALLERS)]
    at_once = await asyncio.gather(*(ask(host, x) for x in xs))
    for x, answer in zip(xs, at_once, strict=True):
        assert await ask(host, x) == answer
    assert all(at_once)


def served(host: model_host.ModelHost, uri: str, runtime: str = "") -> model_host.ModelHost:
    spec = model.ModelSpec(model.ModelId("m"), uri, runtime=runtime, trust=True)
    helpers.apply(host, *helpers.declared(spec))
    return host


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
async def test_a_class_answers_many_callers_as_one(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage, body: str
) -> None:
    await check(served(hosting(), storage.put("m", SOURCE.format(body=body))))


@pytest.mark.parametrize("body", REFUSED.values(), ids=list(REFUSED))
async def test_what_no_tensor_holds_is_the_classes_fault(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage, body: str
) -> None:
    host = served(hosting(), storage.put("m", SOURCE.format(body=body)))
    outcomes = await asyncio.gather(
        *(ask(host, x_of(number)) for number in range(CALLERS)), return_exceptions=True
    )
    assert all(isinstance(outcome, errors.ModelRaised) for outcome in outcomes)


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_answers_many_callers_as_in_process(
    hosting: Callable[..., model_host.ModelHost], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(PROGRAMS[name].eval()), folder / "m.pt")
    host = hosting()
    served(host, str(folder), "torch")
    await check(host)
    reply = await infer(host, x_of(3))
    with torch.inference_mode():
        right = PROGRAMS[name](torch.from_numpy(x_of(3)))
    first = next(iter(right.values())) if isinstance(right, dict) else right
    while isinstance(first, (tuple, list)):
        first = first[0]
    given = next(iter(reply.outputs.values()))
    np.testing.assert_array_equal(given, np.asarray(first))
    assert model.ModelId("m") in host.stats

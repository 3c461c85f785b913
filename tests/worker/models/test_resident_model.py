from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.protocol import inference, model_description
from meshserve.worker.models import model_host
from tests.worker import helpers

WORDS = """
    class Model:
        inputs = [("word", "BYTES", [-1])]

        def predict(self, inputs):
            lengths = {b"dog": 1.5, b"cat": 2.5}
            return {"y": [lengths[word] for word in inputs["word"]]}
"""


def ask(word: bytes) -> inference.InferCall:
    tensor = inference.WireTensor("BYTES", np.array([word], object))
    return inference.InferCall("words", "", "", {"word": tensor})


async def test_metadata_tells_outputs_once_an_answer_has_shown_them(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    host = hosting()
    helpers.apply(host, *helpers.declared(helpers.spec("words", storage.put("words", WORDS))))
    expires_s = asyncio.get_running_loop().time() + 20

    async def describe() -> Any:
        return model_description.metadata_json(await host.describe("words", "", expires_s))

    before = await describe()
    assert [tensor["name"] for tensor in before["inputs"]] == ["word"]
    assert before.get("outputs", []) == []
    with pytest.raises(errors.ModelRaised, match="KeyError: b'bird'"):
        await host.infer(ask(b"bird"), expires_s)  # type: ignore[misc]
    assert (await describe()).get("outputs", []) == []
    reply = await host.infer(ask(b"cat"), expires_s)  # type: ignore[misc]
    assert reply.outputs["y"].tolist() == [2.5]
    assert inference.reply_message(reply, is_raw=False).outputs[0].contents.fp64_contents == [2.5]
    assert (await describe())["outputs"] == [{"name": "y", "datatype": "FP64", "shape": [-1]}]


MOODY = """
    import numpy as np

    class Model:
        def predict(self, inputs):
            x = inputs["x"]
            answer = {"y": x if (x % 1).any() else x.astype("int64")}
            if x.ndim > 1:
                answer["sums"] = x.sum(1)
            return answer
"""


def floats(values: Any) -> inference.InferCall:
    array = np.array(values, np.float64)
    return inference.InferCall("moody", "", "", {"x": inference.WireTensor("FP64", array)})


async def test_a_class_that_declares_nothing_answers_as_it_does_each_time(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    host = hosting()
    helpers.apply(host, *helpers.declared(helpers.spec("moody", storage.put("moody", MOODY))))
    expires_s = asyncio.get_running_loop().time() + 60

    async def answers(values: Any) -> dict[str, Any]:
        reply = await host.infer(floats(values), expires_s)  # type: ignore[misc]
        message = inference.reply_message(reply, is_raw=False)
        raised = {output.name: (output.datatype, list(output.shape)) for output in message.outputs}
        assert {name: array.shape for name, array in reply.outputs.items()} == {
            name: tuple(shape) for name, (_, shape) in raised.items()
        }
        return raised

    assert await answers([1, 2]) == {"y": ("INT64", [2])}
    assert await answers([1.5]) == {"y": ("FP64", [1])}
    assert await answers([[1.5, 2]]) == {"y": ("FP64", [1, 2]), "sums": ("FP64", [1])}
    assert await answers(3.5) == {"y": ("FP64", [])}
    assert await answers([1, 2]) == {"y": ("INT64", [2])}
    metadata = model_description.metadata_json(await host.describe("moody", "", expires_s))
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["x"]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["y", "sums"]
    asked = floats([1])
    asked.outputs = ("z",)
    with pytest.raises(errors.InvalidRequest, match="no output 'z'; it has: y"):
        await host.infer(asked, expires_s)  # type: ignore[misc]


async def test_callers_of_a_class_that_declares_nothing_share_no_run(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> None:
    host = hosting()
    helpers.apply(host, *helpers.declared(helpers.spec("moody", storage.put("moody", MOODY))))
    expires_s = asyncio.get_running_loop().time() + 60

    async def ask_for(number: int) -> bool:
        value = number + 0.5 * (number % 2)
        reply = await host.infer(floats([value]), expires_s)  # type: ignore[misc]
        kind = "f" if number % 2 else "i"
        return bool(
            reply.outputs["y"].tolist() == [value] and reply.outputs["y"].dtype.kind == kind
        )

    assert all(await asyncio.gather(*map(ask_for, range(64))))

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

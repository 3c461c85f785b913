from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.client import conversation
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb
from tests.client import server


def perform(steps: Any, *answers: Any) -> tuple[list[str], Any]:
    """Give these answers; return the paths that were called, and the result."""
    called = []
    try:
        call = next(steps)
        for answer in answers:
            called.append(call.path)
            call = (
                steps.throw(answer) if isinstance(answer, errors.MeshError) else steps.send(answer)
            )
    except StopIteration as end:
        return called, end.value
    raise AssertionError(f"unanswered: {call.path}")


REQUEST = conversation.PredictRequest("echo", np.ones((1, 2), np.float32))
METADATA = server.signature({"x": "FP32"}, {"y": "FP32"})
RENAMED = server.signature({"z": "FP32"}, {"y": "FP32"})


def prediction(value: float) -> Any:
    answer = pb.ModelInferResponse(raw_output_contents=[np.float32(value).tobytes()])
    answer.outputs.add(name="y", datatype="FP32", shape=[1])
    return answer


def test_the_first_prediction_asks_for_metadata_and_the_next_does_not() -> None:
    client = conversation.Conversation()
    assert perform(client.predict(REQUEST), METADATA, prediction(1)) == (
        [paths.MODEL_METADATA, paths.MODEL_INFER],
        np.float32(1),
    )
    assert perform(client.predict(REQUEST), prediction(2)) == ([paths.MODEL_INFER], np.float32(2))


def test_a_refusal_with_the_same_metadata_is_final() -> None:
    client = conversation.Conversation()
    perform(client.predict(REQUEST), METADATA, prediction(1))
    with pytest.raises(errors.InvalidRequest, match="no"):
        perform(client.predict(REQUEST), errors.InvalidRequest("no"), METADATA)


def test_a_refusal_with_other_metadata_is_tried_again() -> None:
    client = conversation.Conversation()
    perform(client.predict(REQUEST), METADATA, prediction(1))
    called, _ = perform(
        client.predict(REQUEST), errors.InvalidRequest("no"), RENAMED, prediction(2)
    )
    assert called == [paths.MODEL_INFER, paths.MODEL_METADATA, paths.MODEL_INFER]


def test_metadata_of_a_model_that_is_gone_is_forgotten() -> None:
    client = conversation.Conversation()
    perform(client.metadata("echo", ""), METADATA)
    with pytest.raises(errors.ModelNotFound):
        perform(client.metadata("echo", ""), errors.ModelNotFound("gone"))
    assert perform(client.predict(REQUEST), METADATA, prediction(1))[0] == [
        paths.MODEL_METADATA,
        paths.MODEL_INFER,
    ]


def test_an_unknown_model_is_not_ready() -> None:
    assert (
        perform(conversation.Conversation().is_ready("echo", ""), errors.ModelNotFound("no"))[1]
        is False
    )

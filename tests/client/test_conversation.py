import numpy as np
import pytest

from meshserve import errors
from meshserve.client import conversation
from tests.client import server


def said(steps, *answers):
    """The methods that `steps` calls when it is answered so, and what it returns."""
    methods = []
    try:
        call = next(steps)
        for answer in answers:
            methods.append(call.method)
            call = (
                steps.throw(answer) if isinstance(answer, errors.MeshError) else steps.send(answer)
            )
    except StopIteration as end:
        return methods, end.value
    raise AssertionError(f"unanswered: {call.method}")


QUESTION = conversation.PredictRequest("echo", np.ones((1, 2), np.float32))
KNOWN = server.signature({"x": "FP32"}, {"y": "FP32"})
RENAMED = server.signature({"z": "FP32"}, {"y": "FP32"})


def answered(value):
    answer = server.pb.ModelInferResponse(raw_output_contents=[np.float32(value).tobytes()])
    answer.outputs.add(name="y", datatype="FP32", shape=[1])
    return answer


def test_the_first_prediction_asks_for_metadata_and_the_next_does_not():
    talk = conversation.Conversation()
    assert said(talk.predict(QUESTION), KNOWN, answered(1)) == (
        ["ModelMetadata", "ModelInfer"],
        np.float32(1),
    )
    assert said(talk.predict(QUESTION), answered(2)) == (["ModelInfer"], np.float32(2))


def test_a_refusal_with_the_same_metadata_is_final():
    talk = conversation.Conversation()
    said(talk.predict(QUESTION), KNOWN, answered(1))
    with pytest.raises(errors.InvalidRequest, match="no"):
        said(talk.predict(QUESTION), errors.InvalidRequest("no"), KNOWN)


def test_a_refusal_with_other_metadata_is_asked_again():
    talk = conversation.Conversation()
    said(talk.predict(QUESTION), KNOWN, answered(1))
    methods, _ = said(talk.predict(QUESTION), errors.InvalidRequest("no"), RENAMED, answered(2))
    assert methods == ["ModelInfer", "ModelMetadata", "ModelInfer"]


def test_metadata_of_a_model_that_is_gone_is_forgotten():
    talk = conversation.Conversation()
    said(talk.metadata("echo", ""), KNOWN)
    with pytest.raises(errors.ModelNotFound):
        said(talk.metadata("echo", ""), errors.ModelNotFound("gone"))
    assert said(talk.predict(QUESTION), KNOWN, answered(1))[0] == ["ModelMetadata", "ModelInfer"]


def test_a_model_that_nobody_knows_is_not_ready():
    assert (
        said(conversation.Conversation().is_ready("echo", ""), errors.ModelNotFound("no"))[1]
        is False
    )

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import meshserve
from meshserve import errors
from tests.client import server

ROWS = np.array([[1.5, 2], [3, 4]], np.float32)


@pytest.fixture
def client(endpoint: str) -> Iterator[meshserve.Client]:
    with meshserve.Client(endpoint, api_key="secret") as connected:
        yield connected


def test_one_array_in_one_array_out(client: Any) -> None:
    answer = client.predict("echo", ROWS)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, ROWS)


def test_lists_and_strings_will_do(client: Any) -> None:
    np.testing.assert_array_equal(
        client.predict("echo", [[1, 2.5]]), np.array([[1, 2.5]], np.float32)
    )
    assert client.predict("words", [["één", b"\xff\0"]]).tolist() == [["één".encode(), b"\xff\0"]]


def test_several_tensors_go_and_come_by_name(client: Any) -> None:
    answer = client.predict("pair", {"a": ROWS, "b": [[1, 2]]})
    assert set(answer) == {"c", "d"}
    assert answer["d"].tolist() == [[1, 2]]


def test_one_output_can_be_asked_for(client: Any) -> None:
    assert client.predict("pair", {"a": ROWS, "b": [[1, 2]]}, outputs=["d"]).tolist() == [[1, 2]]


def test_typed_contents_are_read_too(client: Any) -> None:
    np.testing.assert_array_equal(client.predict("typed", ROWS), ROWS)


def test_version_id_and_key_reach_the_server(
    client: meshserve.Client, inference: server.Inference
) -> None:
    client.predict("echo", ROWS, version="2", request_id="r1")
    _, request, metadata = inference.seen[-1]
    assert (request.model_version, request.id, metadata["authorization"]) == (
        "2",
        "r1",
        "Bearer secret",
    )


def test_metadata_is_fetched_once(client: Any, inference: server.Inference) -> None:
    for _ in range(3):
        client.predict("echo", ROWS)
    assert len(inference.asked("ModelMetadata")) == 1


def test_metadata_that_became_old_is_fetched_again(
    client: meshserve.Client, inference: server.Inference
) -> None:
    client.predict("echo", ROWS)
    inference.models["echo"] = server.signature({"renamed": "FP32"}, {"y": "FP32"})
    np.testing.assert_array_equal(client.predict("echo", ROWS), ROWS)


def test_metadata_describes_inputs_and_outputs(client: Any) -> None:
    known = client.metadata("pair")
    assert known.versions == ("1", "2")
    assert [(spec.name, spec.datatype, spec.shape) for spec in known.inputs] == [
        ("a", "FP32", (-1, 2)),
        ("b", "INT64", (-1, 2)),
    ]


def test_readiness_is_that_of_the_model(client: Any) -> None:
    assert (client.is_ready("echo"), client.is_ready("words"), client.is_ready("missing")) == (
        True,
        False,
        False,
    )


def test_models_are_listed(client: Any) -> None:
    (listed,) = client.models()
    assert (listed.name, listed.version, listed.state) == ("echo", "1", "READY")


def test_an_unknown_model_is_an_error_with_the_servers_message(client: Any) -> None:
    with pytest.raises(errors.ModelNotFound, match=r"^no model missing$"):
        client.predict("missing", ROWS)


def test_an_array_for_a_model_of_two_inputs_is_refused_before_it_is_sent(
    client: meshserve.Client, inference: server.Inference
) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"2 inputs, a \(FP32\), b \(INT64\)"):
        client.predict("pair", ROWS)
    assert inference.asked("ModelInfer") == []


def test_a_full_queue_says_when_to_come_back() -> None:
    failing = server.Failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", retry_after_s=0.25)
    with (
        server.serving(failing) as where,
        meshserve.Client(where) as client,
        pytest.raises(errors.Overloaded, match="queue full") as caught,
    ):
        client.predict("echo", ROWS)
    assert caught.value.retry_after_s == 0.25


def test_a_deadline_is_kept() -> None:
    with server.serving(server.Slow()) as where, meshserve.Client(where, timeout_s=0.2) as client:
        with pytest.raises(errors.DeadlineExceeded):
            client.predict("echo", ROWS)
        with pytest.raises(errors.DeadlineExceeded):
            client.predict("echo", ROWS, timeout_s=0.05)


def test_nobody_there_is_unavailable() -> None:
    with meshserve.Client("127.0.0.1:1", timeout_s=5) as client, pytest.raises(errors.Unavailable):
        client.predict("echo", ROWS)

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes

import orjson
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.protocol import error_responses
from tests.protocol import drawn

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
HEADERS_MAX = 8192
BIG = 5000
FINAL: dict[type[errors.MeshError], dict[bytes, bytes]] = {
    errors.ModelUnavailable: {b"x-envoy-ratelimited": b"true"}
}
"""What keeps Envoy from asking another worker: a model's own 503 would be the same there."""


def every(kind: type[errors.MeshError]) -> list[type[errors.MeshError]]:
    return [kind, *(error_class for sub in kind.__subclasses__() for error_class in every(sub))]


CLASSES = every(errors.MeshError)


@pytest.mark.parametrize(
    "kind",
    [error_class for error_class in CLASSES if not issubclass(error_class, errors.Unavailable)],
)
def test_every_error_has_its_grpc_status(kind: type[errors.MeshError]) -> None:
    status, headers, body = error_responses.grpc_error(kind("no"))
    expected = {
        b"content-type": b"application/grpc",
        b"x-mesh-grpc-status": b"%d" % kind.grpc_code,
        b"x-mesh-grpc-message": b"no",
    }
    assert (status, dict(headers), body) == (200, expected, b"")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_its_http_status(kind: type[errors.MeshError]) -> None:
    status, headers, body = error_responses.rest_error(kind("no"))
    assert (status, dict(headers), orjson.loads(body)) == (
        kind.http_status,
        {b"content-type": b"application/json"} | FINAL.get(kind, {}),
        {"error": "no"},
    )


def test_a_draining_worker_answers_503_over_grpc_too() -> None:
    assert error_responses.grpc_error(errors.Unavailable("draining"))[0] == 503
    status, headers, _ = error_responses.grpc_error(errors.ModelUnavailable("mine"))
    assert (status, dict(headers)[b"x-mesh-grpc-status"]) == (200, b"14")


def test_a_message_is_percent_encoded_as_grpc_does() -> None:
    headers = dict(error_responses.grpc_error(errors.InvalidRequest("50 % of 'ä'\n~"))[1])
    assert headers[b"x-mesh-grpc-message"] == b"50 %25 of '%C3%A4'%0A~"


@drawn.patient
@given(ANY_TEXT, st.sampled_from([1, 100]), st.none() | st.floats(0, 1e6))
def test_any_message_fits_into_headers_and_reads_the_same(
    message: str, times: int, retry_after_s: float | None
) -> None:
    headers = dict(
        error_responses.grpc_error(errors.LoadFailed(message * times, retry_after_s=retry_after_s))[
            1
        ]
    )
    sent = unquote_to_bytes(headers[b"x-mesh-grpc-message"]).decode()
    whole = (message * times).encode(errors="replace").decode()
    assert whole.startswith(sent)
    assert sent == whole or len(headers[b"x-mesh-grpc-message"]) > error_responses.MESSAGE_MAX - 100
    assert sum(len(name) + len(value) for name, value in headers.items()) < HEADERS_MAX


@drawn.patient
@given(ANY_TEXT)
def test_any_message_is_json(message: str) -> None:
    assert orjson.loads(error_responses.rest_error(errors.ModelRaised(message))[2]) == {
        "error": message.encode(errors="replace").decode()
    }


def test_a_message_without_end_is_cut() -> None:
    assert len(error_responses.rest_error(errors.ModelRaised("a" * 10**6))[2]) < BIG


def test_retry_after_is_sent_in_both_protocols() -> None:
    overloaded = errors.Overloaded("busy", retry_after_s=1.25)
    assert dict(error_responses.rest_error(overloaded)[1])[b"retry-after"] == b"2"
    details = dict(error_responses.grpc_error(overloaded)[1])[b"x-mesh-grpc-details"]
    status, retry = (
        status_pb2.Status.FromString(base64.b64decode(details, validate=True)),
        error_details_pb2.RetryInfo(),
    )
    assert (status.code, status.message) == (8, "busy")
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1250

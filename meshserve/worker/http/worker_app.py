"""A worker's application: it takes whole HTTP requests and returns answers.

Envoy bridges gRPC to HTTP/1.1: one message in each direction, errors in headers. The application
is a function for `http_protocol.serve`, and answers quick predictions without waiting.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import bisect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from meshserve import errors
from meshserve.core.values import model_figures
from meshserve.protocol import (
    classification,
    error_responses,
    frames,
    http_protocol,
    inference,
    model_description,
    paths,
    repeated_calls,
)
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker.models import model_host

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
Answer = http_protocol.Answer

GRPC_HEADERS = (error_responses.GRPC_TYPE,)
TEXT_HEADERS = ((b"content-type", b"text/plain"),)

MODEL_METADATA = (b"mm-vmodel-id", b"mm-model-id")
"""ModelMesh's gRPC metadata that names the model; the first one wins."""

ATTEMPT_COUNT = b"x-envoy-attempt-count"
FIRST_ATTEMPT = b"1"
"""Envoy numbers the attempts of a request, and removes what a client has sent by this name."""

UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
TIMEOUT_DIGITS_MAX = 8

ABANDONED = "Abandoned"
"""The kind of failure that counts requests whose callers disconnected before the answer."""

LATENCY_BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class InferenceRequest:
    """One request for a model.

    `path` is still percent-encoded. `expires_s` is the deadline on the event loop's clock, infinite
    without one.
    `metadata_model` is the model named by gRPC metadata, which overrides the message's, or "".
    `is_retry`: another worker may have died of it. `call` is the prediction that it asks for, once
    that is known, and `failure` the HTTP status of its error, 0 without one.
    """

    __slots__ = (
        *("body", "call", "expires_s", "failure", "headers"),
        *("is_retry", "metadata_model", "method", "path"),
    )

    def __init__(
        self, method: str, path: bytes, headers: Sequence[http_protocol.Header], body: bytes
    ) -> None:
        """Read the deadline and the metadata. Raises InvalidRequest if they are malformed."""
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.metadata_model = ""
        self.is_retry = False
        self.call: inference.InferCall | None = None
        self.failure = 0
        if type(headers) is frames.FrameHeaders and not headers.needs_reading:
            self.expires_s = math.inf
            return
        timeout_s = math.inf
        for name, value in headers:
            if name == b"grpc-timeout":
                timeout_s = _timeout_s(value)
            elif name[:3] == b"mm-":
                self.metadata_model = _metadata_model(headers)
            elif name == ATTEMPT_COUNT:
                self.is_retry = value != FIRST_ATTEMPT
        self.expires_s = asyncio.get_running_loop().time() + timeout_s


def _timeout_s(value: bytes) -> float:
    """Return the seconds of a `grpc-timeout` header. Raises InvalidRequest.

    The value is at most 8 digits and a unit (PROTOCOL-HTTP2.md in github.com/grpc/grpc).
    """
    digits, unit = value[:-1], value[-1:]
    if not digits.isdigit() or len(digits) > TIMEOUT_DIGITS_MAX or unit not in UNITS_S:
        raise errors.InvalidRequest(
            f"grpc-timeout {value.decode('latin-1')!r} is not a number and one of H, M, S, m, u, n"
        )
    return int(digits) * UNITS_S[unit]


def _metadata_model(headers: Sequence[http_protocol.Header]) -> str:
    """Return the model that the metadata names, or "". Raises InvalidRequest."""
    metadata = {name: value for name, value in headers if name.startswith(b"mm-")}
    for name in MODEL_METADATA:
        if name in metadata:
            return metadata[name].decode("utf-8", "replace")
        if name + b"-bin" in metadata:
            return _from_base64(metadata[name + b"-bin"])
    return ""


def _from_base64(value: bytes) -> str:
    try:
        # gRPC may leave out the padding; without `validate` Python skips foreign characters.
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise errors.InvalidRequest(
            "the model's name in the -bin metadata is not base64 of UTF-8"
        ) from None


@dataclass(slots=True)
class WorkerLoad:
    """Counters of a whole worker's requests since its process began.

    `in_flight` is the number of requests that wait now. The keys of `failures_by_kind` are class
    names of errors. `latency_counts` has the answers of each bucket of LATENCY_BOUNDS_S, and last
    those above all bounds.
    """

    requests: int = 0
    failures: int = 0
    in_flight: int = 0
    failures_by_kind: dict[str, int] = field(default_factory=dict)
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    latency_total_s: float = 0.0

    def record_failure(self, kind: str) -> None:
        """Count a request that is answered with this kind of error."""
        self.failures += 1
        self.failures_by_kind[kind] = self.failures_by_kind.get(kind, 0) + 1

    def record_answer(self, took_s: float) -> None:
        """Count an answer, error or not, and the time since its request's arrival."""
        self.requests += 1
        # From the left, because Prometheus counts a time that equals a bound below it (`le`).
        self.latency_counts[bisect.bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        self.latency_total_s += took_s


Route = Callable[[InferenceRequest], Answer | Awaitable[Answer]]
"""Returns an answer, or an awaitable if it has to wait. Raises the errors that become answers."""


class WorkerApp:
    """Answers the requests of one worker.

    `is_synced` is set once the worker has its catalog. Before that, and while `is_draining`, every
    request is answered by 503, which Envoy retries on another worker.
    """

    def __init__(
        self,
        host: model_host.ModelHost,
        load: WorkerLoad,
        rest: Route,
        pages: Mapping[str, Callable[[], Answer]],
    ) -> None:
        """`pages` answer their paths, without counts; `rest` answers all else that is not gRPC."""
        self.is_synced = False
        self.is_draining = False
        self.load = load
        self._host = host
        self._rest = rest
        self._grpc: dict[bytes, Route] = {
            paths.MODEL_INFER.encode(): self._infer,
            paths.MODEL_READY.encode(): self._ready,
            paths.MODEL_METADATA.encode(): self._metadata,
            paths.MODEL_CONFIG.encode(): self._config,
            paths.MODEL_STATISTICS.encode(): self._statistics,
        }
        self._pages = {path.encode(): page for path, page in pages.items()}
        self._pages[paths.HEALTHZ.encode()] = self._health
        self._is_idle = asyncio.Event()
        self._fresh = host.traffic.fresh
        self.open: set[InferenceRequest] = set()
        """The requests that wait for their answers."""

    @property
    def is_ready(self) -> bool:
        """Whether predictions are answered."""
        return self.is_synced and not self.is_draining

    async def wait_until_idle(self) -> None:
        """Return once no request waits for its answer."""
        while self.load.in_flight:
            self._is_idle.clear()
            await self._is_idle.wait()

    def handle(
        self, method: str, path: bytes, headers: Sequence[http_protocol.Header], body: bytes
    ) -> Answer | Awaitable[Answer]:
        """Return the answer to a request, or an awaitable if it has to wait. Raises nothing."""
        route = self._grpc.get(path)
        # Before the refusal below: health and metrics are asked of a worker that drains too.
        if route is None and path in self._pages:
            return self._pages[path]()
        # A REST answer does for gRPC too: Envoy retries a 503 elsewhere, so no client sees it.
        if self.is_draining or not self.is_synced:
            draining = errors.Unavailable("the worker is draining or starting")
            return error_responses.rest_error(draining)
        began_s = time.perf_counter()
        request: InferenceRequest | None = None
        outcome: Answer | Awaitable[Answer]
        try:
            request = InferenceRequest(method, path, headers, body)
            # Before the model runs here: the worker that had the request may have died of it.
            if request.is_retry:
                self._host.trials.look_for_deaths()
            outcome = self._rest(request) if route is None else route(request)
        except Exception as error:  # noqa: BLE001 `_failure` logs what is our own mistake
            outcome = self._failure(path, request, error)
        if isinstance(outcome, tuple):
            self._record(request, len(outcome[2]), time.perf_counter() - began_s)
            return outcome
        assert request is not None, "only a route returns an awaitable"
        return self._answer_later(request, outcome, began_s)

    async def _answer_later(
        self, request: InferenceRequest, outcome: Awaitable[Answer], began_s: float
    ) -> Answer:
        self.load.in_flight += 1
        self.open.add(request)
        try:
            answer = await outcome
        except Exception as error:  # noqa: BLE001 `_failure` logs what is our own mistake
            answer = self._failure(request.path, request, error)
        except asyncio.CancelledError:
            self.load.record_failure(ABANDONED)
            request.failure = model_figures.ABANDONED
            self._end(request, 0, began_s)
            raise
        self._end(request, len(answer[2]), began_s)
        return answer

    def _end(self, request: InferenceRequest, answer_bytes: int, began_s: float) -> None:
        """Count a request that waits no longer for its answer."""
        self.load.in_flight -= 1
        self.open.discard(request)
        if not self.load.in_flight:
            self._is_idle.set()
        self._record(request, answer_bytes, time.perf_counter() - began_s)

    def _record(self, request: InferenceRequest | None, answer_bytes: int, took_s: float) -> None:
        """Count an answer, and if the request was a prediction, for its model too."""
        self.load.record_answer(took_s)
        call = request.call if request is not None else None
        if request is None or call is None or call.resolved is None:
            return
        figures = self._fresh[call.resolved]
        figures.record_answer(took_s, len(request.body), answer_bytes)
        if request.failure:
            figures.record_failure(request.failure)

    def _failure(self, path: bytes, request: InferenceRequest | None, error: Exception) -> Answer:
        """Count the error and return it as the answer of the request's protocol."""
        self.load.record_failure(type(error).__name__)
        if not isinstance(error, errors.MeshError):
            logger.error("%s failed", path.decode("latin-1"), exc_info=error)
            error = errors.MeshError(f"the worker failed: {type(error).__name__}")
        if request is not None:
            request.failure = error.http_status
        if path in self._grpc:
            if isinstance(error, errors.ModelNotFound):
                error = unknown_model(error)
            return error_responses.grpc_error(error)
        return error_responses.rest_error(error)

    def _health(self) -> Answer:
        return (200, TEXT_HEADERS, b"ok") if self.is_ready else (503, TEXT_HEADERS, b"not ready")

    # The gRPC methods of one model

    def _infer(self, request: InferenceRequest) -> Answer | Awaitable[Answer]:
        call = request.call = repeated_calls.decode_infer(request.body)
        call.headers = request.headers
        if request.metadata_model:
            # The message's version belongs to the name that is not used.
            call.model, call.version = request.metadata_model, ""
        outcome = self._host.infer(call, request.expires_s)
        if isinstance(outcome, inference.InferReply):
            return 200, GRPC_HEADERS, encode_reply(call, outcome)
        return self._infer_later(call, outcome)

    async def _infer_later(
        self, call: inference.InferCall, outcome: Awaitable[inference.InferReply]
    ) -> Answer:
        return 200, GRPC_HEADERS, encode_reply(call, await outcome)

    def _ready(self, request: InferenceRequest) -> Answer:
        message = _parse(pb.ModelReadyRequest, request)
        try:
            is_ready = self._host.is_ready(request.metadata_model or message.name, message.version)
        except errors.ModelNotFound:
            # Triton's answer; its clients ask this way whether a model exists.
            is_ready = False
        return _encode(pb.ModelReadyResponse(ready=is_ready))

    async def _metadata(self, request: InferenceRequest) -> Answer:
        message = _parse(pb.ModelMetadataRequest, request)
        name = request.metadata_model or message.name
        description = await self._host.describe(name, message.version, request.expires_s)
        return _encode(model_description.metadata_message(description))

    async def _config(self, request: InferenceRequest) -> Answer:
        message = _parse(pb.ModelConfigRequest, request)
        name = request.metadata_model or message.name
        description = await self._host.describe(name, message.version, request.expires_s)
        return _encode(model_description.config_message(description))

    def _statistics(self, request: InferenceRequest) -> Answer:
        message = _parse(pb.ModelStatisticsRequest, request)
        name = request.metadata_model or message.name
        statistics = self._host.statistics(name, message.version)
        return _encode(model_description.statistics_message(statistics))


def unknown_model(error: errors.ModelNotFound) -> errors.ModelNotFound:
    """Return the error with the words before it by which Triton's clients know it."""
    return errors.ModelNotFound(f"Request for unknown model: {error.message}")


def encode_reply(call: inference.InferCall, reply: inference.InferReply) -> bytes:
    """Return a serialised answer in the form that the call asks for and the model's clients read.

    Raises InvalidRequest for classes of an output that has none.
    """
    if call.classes:
        reply = classification.apply(reply, call.classes)
    is_raw = call.is_raw or reply.signature.platform in inference.RAW_PLATFORMS
    return repeated_calls.encode_infer(reply, is_raw=is_raw)


def _parse(kind: type[M], request: InferenceRequest) -> M:
    try:
        return kind.FromString(request.body)
    except DecodeError:
        raise errors.InvalidRequest(f"the body is not a {kind.DESCRIPTOR.name}") from None


def _encode(message: Message) -> Answer:
    return 200, GRPC_HEADERS, message.SerializeToString()

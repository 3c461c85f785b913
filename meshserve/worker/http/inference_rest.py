"""The REST paths of one model: V2 (Open Inference Protocol) and V1 (TensorFlow Serving)."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson

from meshserve import errors
from meshserve.protocol import (
    classification,
    error_responses,
    http_protocol,
    inference,
    llm_errors,
    model_description,
    rest,
    tf_serving,
    v1,
)
from meshserve.worker.http import big_bodies, worker_app
from meshserve.worker.models import model_host

PREDICT = "predict"
OPENAI_CLIENT = b"x-stainless-"
"""What the names of headers begin with that OpenAI's and Anthropic's clients send."""

JSON_HEADERS = (error_responses.JSON_TYPE,)

VERBS = ("predict", "classify", "regress", "explain")
"""Verbs of TensorFlow Serving and KServe, which clients append to a model's path."""

READING = ("GET", "HEAD")

BIG_BYTES = big_bodies.THREAD_BYTES_MIN
"""Arrays beyond this size are freed in a thread."""

Decoded = rest.RestCall | v1.PredictCall
Encoded = TypeVar("Encoded")

Get = Callable[[str, str, worker_app.InferenceRequest], Awaitable[http_protocol.Answer]]


class InferenceRest:
    """Answers the paths of one model.

    They are `/v2/models/{m}[/versions/{v}][/infer|ready|config|stats]` and
    `/v1/models/{m}[/versions/{v}|/labels/{alias}][/metadata|:predict]`.
    """

    def __init__(self, host: model_host.ModelHost) -> None:
        self._host = host
        self._bodies = big_bodies.BigBodies()
        self._gets: dict[str, Get] = {
            "": self._metadata,
            "ready": self._ready,
            "config": self._config,
            "stats": self._stats,
        }

    async def answer(self, request: worker_app.InferenceRequest) -> http_protocol.Answer:
        """Answer a request. Raises ModelNotFound for other paths, or as `ModelHost.infer` does."""
        path = request.path.decode("latin-1")
        # Split before unquoting, because a quoted name may hold slashes.
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match parts:
            case ["v2", "models", name, "versions", version, *rest_]:
                return await self._v2(name, version, "/".join(rest_), request)
            case ["v2", "models", name, *rest_]:
                return await self._v2(name, "", "/".join(rest_), request)
            case ["v1", "models", _, *_]:
                return await self._v1(parts[2:], request)
            case _:
                raise errors.ModelNotFound(f"there is nothing at {path}")

    async def _v2(
        self, name: str, version: str, what: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        is_infer = what == "infer" and request.method == "POST"
        answer = self._infer if is_infer else self._gets.get(what)
        if answer is None or not (is_infer or request.method in READING):
            raise _no_such_method(request)
        try:
            return await answer(name, version, request)
        except errors.ModelNotFound as error:
            raise worker_app.unknown_model(error) from None

    async def _infer(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        request.call = self._find_call(name, version)
        body = await self._bodies.inflate(request.body, request.headers)
        if rest.is_raw_binary(request.headers):
            description = await self._host.describe(name, version, request.expires_s)
            rest_call = rest.decode_raw_binary(body, description.signature)
        else:
            rest_call = await self._bodies.run(
                _work_bytes(body, request.headers), rest.decode_infer, body, request.headers
            )
        call = rest_call.call
        call.resolved, request.call = request.call.resolved, call
        call.model, call.version, call.headers = name, version, request.headers
        if call.classes:
            reply = await self._reply(call, request.expires_s)
            reply = classification.apply(reply, call.classes)
            headers, body = await self._encode(reply, rest.encode_infer, rest_call)
        else:
            # No variable here, for nobody else has the arrays when they are freed.
            headers, body = await self._encode(
                await self._reply(call, request.expires_s), rest.encode_infer, rest_call
            )
        return 200, headers, body

    def _find_call(self, name: str, version: str) -> inference.InferCall:
        """Return a call that stands for the request until its body is read."""
        call = inference.InferCall(name, version)
        # An unknown model is told in its turn.
        with contextlib.suppress(errors.ModelNotFound):
            call.resolved = self._host.catalog_follower.catalog.resolve(name, version)
        return call

    async def _encode(
        self, reply: inference.InferReply, function: Callable[..., Encoded], decoded: Decoded
    ) -> Encoded:
        """Return what the function makes of the reply and the decoded request."""
        # The inputs are as large as the body was, and no answer needs them.
        decoded.call.inputs, decoded.call.source, decoded.call.headers = {}, None, ()
        size_bytes, reply = big_bodies.answer_work(reply)
        try:
            return await self._bodies.run(size_bytes, function, reply, decoded)
        finally:
            if size_bytes >= big_bodies.THREAD_BYTES_MIN:
                self._bodies.free_soon(list(reply.outputs.values()))

    async def _reply(self, call: inference.InferCall, expires_s: float) -> inference.InferReply:
        inputs = call.inputs
        try:
            outcome = self._host.infer(call, expires_s)
            return outcome if isinstance(outcome, inference.InferReply) else await outcome
        finally:
            big = [tensor.array for tensor in inputs.values() if tensor.array.nbytes > BIG_BYTES]
            if big:
                self._bodies.free_soon(big)

    async def _metadata(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        description = await self._host.describe(name, version, request.expires_s)
        return _json(model_description.metadata_json(description))

    async def _config(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        description = await self._host.describe(name, version, request.expires_s)
        return _json(model_description.config_json(description))

    async def _ready(
        self, name: str, version: str, _request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        is_ready = self._host.is_ready(name, version)
        return _json({"name": name, "ready": is_ready}, 200 if is_ready else 424)

    async def _stats(
        self, name: str, version: str, _request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        return _json(model_description.statistics_json(self._host.statistics(name, version)))

    async def _v1(
        self, parts: Sequence[str], request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        """Answer a path by its parts below `/v1/models`."""
        *above, last = parts
        last, verb = _split_verb(last)
        match [*above, last]:
            case [name]:
                return await self._v1_model(name, "", verb, request)
            case [name, "versions", version]:
                return await self._v1_model(name, version, verb, request)
            case [name, "labels", label]:
                return await self._v1_model(name, self._labelled(name, label), verb, request)
            case [name, "metadata"] if not verb:
                return await self._v1_metadata(name, "", request)
            case [name, "versions", version, "metadata"] if not verb:
                return await self._v1_metadata(name, version, request)
            case [name, "labels", label, "metadata"] if not verb:
                return await self._v1_metadata(name, self._labelled(name, label), request)
        raise _no_such_method(request)

    def _labelled(self, name: str, label: str) -> str:
        """Return the model's version for a label of TensorFlow Serving, which is an alias here.

        Raises ModelNotFound if the label is not an alias of this model.
        """
        catalog = self._host.catalog_follower.catalog
        alias = catalog.alias(label)
        if alias is None or catalog.resolve(label).name != catalog.resolve(name).name:
            raise errors.ModelNotFound(
                f"model {name!r} has no label {label!r}: labels are aliases of the model, "
                "which are also called by themselves, as /v1/models/ALIAS:predict"
            )
        return catalog.resolve(label).version

    async def _v1_model(
        self, name: str, version: str, verb: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        if verb == PREDICT and request.method == "POST":
            return await self._predict(name, version, request)
        if verb not in ("", PREDICT):
            # An unknown model is 404, as for `:predict`, before the verb is refused.
            self._host.catalog_follower.catalog.resolve(name, version)
            raise errors.Unsupported(f":{verb} is not offered: ask for :{PREDICT}")
        if verb or request.method not in READING:
            raise _no_such_method(request)
        try:
            return self._v1_status(name, version)
        except errors.ModelNotFound:
            if not any(key.startswith(OPENAI_CLIENT) for key, _ in request.headers):
                raise
            # OpenAI's API has the same path, and shows its clients nothing of V1's form.
            return _json(llm_errors.openai(f"The model `{name}` does not exist.", 404), 404)

    def _v1_status(self, name: str, version: str) -> http_protocol.Answer:
        catalog = self._host.catalog_follower.catalog
        id_ = catalog.resolve(name, version)
        versions = (id_.version,) if version else catalog.versions(id_.name)
        are_ready = {version: self._host.is_ready(id_.name, version) for version in versions}
        is_ready = self._host.is_ready(name, version)
        document = tf_serving.status_json(name, are_ready, is_ready=is_ready)
        return _json(document, 200 if is_ready else 424)

    async def _v1_metadata(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        if request.method not in READING:
            raise _no_such_method(request)
        description = await self._host.describe(name, version, request.expires_s)
        return _json(tf_serving.metadata_json(description))

    async def _predict(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        request.call = self._find_call(name, version)
        description = await self._host.describe(name, version, request.expires_s)
        body = await self._bodies.inflate(request.body, request.headers)
        predicted = await self._bodies.run(
            len(body), v1.decode_predict, body, description.signature
        )
        # The version whose signature decoded the request must also answer it.
        predicted.call.model, predicted.call.version = name, description.id.version
        predicted.call.headers, predicted.call.resolved = request.headers, request.call.resolved
        request.call = predicted.call
        answered = await self._encode(
            await self._reply(predicted.call, request.expires_s), v1.encode_predict, predicted
        )
        return 200, JSON_HEADERS, answered


def _work_bytes(body: bytes, headers: Sequence[http_protocol.Header]) -> int:
    """Return the size that decides where a V2 body is decoded. Raises InvalidRequest."""
    if len(body) < big_bodies.THREAD_BYTES_MIN:
        return len(body)
    # Binary tensors need no process: theirs is a short time, or one in Python's own loops.
    binary_bytes = min(len(body), big_bodies.PROCESS_BYTES_MIN - 1)
    return max(rest.json_bytes(headers, len(body)), binary_bytes)


def _split_verb(last: str) -> tuple[str, str]:
    """Return the last part of a path without its verb, and the verb, "" if it has none."""
    for verb in VERBS:
        if last.endswith(f":{verb}"):
            return last.removesuffix(f":{verb}"), verb
    return last, ""


def _no_such_method(request: worker_app.InferenceRequest) -> errors.ModelNotFound:
    path = request.path.decode("latin-1")
    return errors.ModelNotFound(f"there is no {request.method} {path}")


def _json(document: Any, status: int = 200) -> http_protocol.Answer:
    return status, JSON_HEADERS, orjson.dumps(document)

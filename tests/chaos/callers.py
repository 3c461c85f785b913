"""The clients that ask: tritonclient, this package's, plain gRPC and plain HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

import aiohttp
import grpc
import httpx
import numpy as np
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

import meshserve
from meshserve import errors
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from meshserve.testing import fake_engine

USER, ADMIN = "of-a-user", "of-an-operator"
TIMEOUT_S = 60.0
"""Longer than anything that a request waits for: one that takes so long has failed."""

TOKENS = 8
GRPC_STATUSES = {
    "UNAVAILABLE": "503",
    "NOT_FOUND": "404",
    "FAILED_PRECONDITION": "424",
    "DEADLINE_EXCEEDED": "504",
    "RESOURCE_EXHAUSTED": "429",
    "INTERNAL": "500",
    "UNAUTHENTICATED": "401",
    "INVALID_ARGUMENT": "400",
}
BROKEN = "broken"
"""The status of an HTTP request whose connection was refused or broke."""


class Refused(Exception):
    """A request that got no answer: its status, as HTTP's number, and what was said."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


Ask = Callable[[str, np.ndarray], Awaitable[np.ndarray]]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def open_http(listen: str, key: str = "") -> httpx.AsyncClient:
    """Return a client of plain HTTP, with a key if it is given."""
    headers = bearer(key) if key else {}
    # Without `verify`, each client would read the machine's certificates, for 30 ms of CPU.
    return httpx.AsyncClient(
        base_url=f"http://{listen}", timeout=TIMEOUT_S, headers=headers, verify=False
    )


def infer_request(name: str, x: np.ndarray) -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest(model_name=name)
    asked.inputs.add(name="x", datatype="FP32", shape=x.shape)
    asked.raw_input_contents.append(x.tobytes())
    return asked


def json_request(x: np.ndarray) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    return {"inputs": [tensor]}


class Callers:
    """One of each client, with its connections. Use it as an asynchronous context."""

    def __init__(self, listen: str) -> None:
        self._listen = listen

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._listen)
        self._stub: Any = rpc.GRPCInferenceServiceStub(self._channel)
        self._http = open_http(self._listen, USER)
        self._triton_grpc = tritonclient.grpc.aio.InferenceServerClient(self._listen)
        self._triton_http = tritonclient.http.aio.InferenceServerClient(
            self._listen, conn_timeout=TIMEOUT_S
        )
        self._ours = meshserve.AsyncClient(self._listen, USER, TIMEOUT_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._http.aclose()
        await self._triton_grpc.close()
        await self._triton_http.close()
        await self._ours.close()

    def ways(self) -> dict[str, Ask]:
        """Return how one may ask, by a name for reports."""
        return {
            "grpc": self._ask_grpc,
            "tritonclient.grpc": self._ask_triton_grpc,
            "tritonclient.http": self._ask_triton_http,
            "meshserve.AsyncClient": self._ask_ours,
            "http, JSON": self._ask_json,
            "http, gzip": self._ask_gzip,
            "http, new connection": self._ask_anew,
        }

    def llm_ways(self) -> dict[str, Ask]:
        """Return how one may ask the LLM for words by their numbers, as `phrase` has them."""
        return {"completions": self._complete, "streamed completions": self._stream}

    async def _complete(self, name: str, x: np.ndarray) -> np.ndarray:
        try:
            answer = await self._http.post("/v1/completions", json=_prompt(name, x))
        except httpx.HTTPError as error:
            raise Refused(BROKEN, repr(error)) from error
        if answer.status_code != 200:
            raise Refused(str(answer.status_code), answer.text)
        return _numbers(answer.json()["choices"][0]["text"])

    async def _stream(self, name: str, x: np.ndarray) -> np.ndarray:
        body = {**_prompt(name, x), "stream": True}
        try:
            async with self._http.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise Refused(str(answer.status_code), (await answer.aread()).decode())
                pieces = [line.removeprefix("data: ") async for line in answer.aiter_lines()]
        except httpx.HTTPError as error:
            raise Refused(BROKEN, repr(error)) from error
        if "[DONE]" not in pieces:
            raise Refused("500", f"the stream ended with {pieces[-3:]}")
        chunks = [json.loads(piece) for piece in pieces if piece.startswith("{")]
        return _numbers("".join(chunk["choices"][0]["text"] for chunk in chunks))

    async def _ask_grpc(self, name: str, x: np.ndarray) -> np.ndarray:
        try:
            answer = await self._stub.ModelInfer(
                infer_request(name, x), timeout=TIMEOUT_S, metadata=tuple(bearer(USER).items())
            )
        except grpc.aio.AioRpcError as error:
            raise _refused(error.code().name, error.details()) from error
        return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(x.shape)

    async def _ask_triton_grpc(self, name: str, x: np.ndarray) -> np.ndarray:
        tensor = tritonclient.grpc.aio.InferInput("x", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        try:
            answer = await self._triton_grpc.infer(
                name, [tensor], headers=bearer(USER), client_timeout=TIMEOUT_S
            )
        except InferenceServerException as error:
            raise _refused(str(error.status()).rpartition(".")[2], error.message()) from error
        return np.asarray(answer.as_numpy("y"))

    async def _ask_triton_http(self, name: str, x: np.ndarray) -> np.ndarray:
        tensor = tritonclient.http.aio.InferInput("x", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        try:
            answer = await self._triton_http.infer(name, [tensor], headers=bearer(USER))
        except InferenceServerException as error:
            raise Refused(str(error.status()), error.message()) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Refused(BROKEN, repr(error)) from error
        return np.asarray(answer.as_numpy("y"))

    async def _ask_ours(self, name: str, x: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(await self._ours.predict(name, {"x": x}))
        except errors.MeshError as error:
            raise Refused(str(error.http_status), str(error)) from error

    async def _ask_json(self, name: str, x: np.ndarray) -> np.ndarray:
        return await self._post(self._http, name, json.dumps(json_request(x)).encode(), {})

    async def _ask_gzip(self, name: str, x: np.ndarray) -> np.ndarray:
        body = gzip.compress(json.dumps(json_request(x)).encode(), 1)
        return await self._post(self._http, name, body, {"content-encoding": "gzip"})

    async def _ask_anew(self, name: str, x: np.ndarray) -> np.ndarray:
        """Ask as a client that connects for each request does: by a socket of its own."""
        body = json.dumps(json_request(x)).encode()
        async with open_http(self._listen, USER) as http:
            return await self._post(http, name, body, {})

    async def _post(
        self,
        http: httpx.AsyncClient,
        name: str,
        body: bytes,
        headers: dict[str, str],
    ) -> np.ndarray:
        try:
            answer = await http.post(f"/v2/models/{name}/infer", content=body, headers=headers)
        except httpx.HTTPError as error:
            raise Refused(BROKEN, repr(error)) from error
        if answer.status_code != 200:
            raise Refused(str(answer.status_code), answer.text)
        # A big answer is decoded in a thread: the traffic's rate must not depend on it.
        document = await asyncio.to_thread(answer.json) if len(answer.content) > 1 << 16 else None
        output = (document or answer.json())["outputs"][0]
        return np.array(output["data"], np.float32).reshape(output["shape"])


def phrase(first: int) -> np.ndarray:
    """Return the numbers of the words that the engine gives for the prompt of this number.

    An array of float32, as answers of models are. Source: `fake_engine.FakeEngine`.
    """
    count = len(fake_engine.WORDS)
    return np.array([(first + index**2) % count for index in range(TOKENS)], np.float32)


def _prompt(name: str, x: np.ndarray) -> dict[str, Any]:
    # The engine's first word follows from the sum of the prompt's bytes: "d" is 100.
    return {"model": name, "prompt": chr(ord("d") + int(x[0])), "max_tokens": len(x)}


def _numbers(text: str) -> np.ndarray:
    return np.array([fake_engine.WORDS.index(word) for word in text.split()], np.float32)


def _refused(code: str, details: str | None) -> Refused:
    status = GRPC_STATUSES.get(code, code)
    return Refused(status, details or "")


class Answer(NamedTuple):
    """A management request's outcome: status 0 where the connection broke."""

    status: int
    document: Any


class Operator:
    """Manages the mesh by its REST API, with the operator's key."""

    def __init__(self, listen: str) -> None:
        self._http = open_http(listen, ADMIN)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: Any = None) -> Answer:
        try:
            answer = await self._http.request(method, f"/mesh/v1/{path}", json=body)
        except httpx.HTTPError as error:
            return Answer(0, repr(error))
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return Answer(answer.status_code, answer.json() if is_json else answer.text)

"""What Triton's example programs do, one case for each kind of them."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from compat import cases, triton_infer, world

PEER = triton_infer.PEER
EXAMPLES = "client/src/python/examples/"
MANY = 40
FIELDS = {"UINT8": "uint_contents", "UINT32": "uint_contents", "INT16": "int_contents"}
"""Typed fields whose names are not their datatype's."""

WAIT_S = 30.0

A = np.arange(16, dtype=np.int32)[None]
B = np.ones((1, 16), np.int32)


def stub_of(asked: world.World) -> Any:
    """Return the stub of gRPC's messages, which clients without a library use."""
    return service_pb2_grpc.GRPCInferenceServiceStub(asked.grpc._channel)  # noqa: SLF001


def explicit(model: str, field: str, datatype: str, *values: Sequence[Any]) -> Any:
    """Return a request with INPUT<i> of shape [1, n] in a typed field."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for number, content in enumerate(values):
        tensor = request.inputs.add(
            name=f"INPUT{number}", datatype=datatype, shape=[1, len(content)]
        )
        getattr(tensor.contents, field).extend(content)
    return request


def _raw(answer: Any, dtype: Any) -> list[np.ndarray]:
    """Return the raw outputs, without which Triton's examples fail."""
    assert len(answer.raw_output_contents) == len(answer.outputs), "the answer is not raw"
    return [np.frombuffer(content, dtype) for content in answer.raw_output_contents]


@cases.case(PEER, "explicit contents", EXAMPLES + "grpc_explicit_int_content_client.py")
def whole_numbers(asked: world.World) -> None:
    """Typed int_contents are answered by raw contents."""
    request = explicit("simple", "int_contents", "INT32", A[0].tolist(), B[0].tolist())
    total, difference = _raw(stub_of(asked).ModelInfer(request), np.int32)
    world.equal(total, (A + B)[0])
    world.equal(difference, (A - B)[0])


@cases.case(PEER, "explicit contents", EXAMPLES + "grpc_explicit_int8_content_client.py")
def small_whole_numbers(asked: world.World) -> None:
    """INT8 is in int_contents too."""
    request = explicit("simple_int8", "int_contents", "INT8", A[0].tolist(), B[0].tolist())
    total, _ = _raw(stub_of(asked).ModelInfer(request), np.int8)
    world.equal(total, (A + B)[0].astype(np.int8))


@cases.case(PEER, "explicit contents", EXAMPLES + "grpc_explicit_byte_content_client.py")
def texts_in_fields(asked: world.World) -> None:
    """Typed bytes_contents are answered by length-prefixed raw contents."""
    texts = [[str(value).encode() for value in row] for row in (A[0], B[0])]
    answer = stub_of(asked).ModelInfer(explicit("simple_string", "bytes_contents", "BYTES", *texts))
    assert len(answer.raw_output_contents) == 2, "the answer is not raw"
    result = tritonclient.grpc.InferResult(answer).as_numpy("OUTPUT0")
    world.equal(result, triton_infer.numbers("STRING", (1, 16), 1))


@cases.swept(
    PEER,
    "explicit contents",
    "qa/L0_grpc/python_unit_test",
    ("BOOL", "UINT8", "UINT32", "UINT64", "INT16", "INT64", "FP32", "FP64"),
)
def every_typed_field(asked: world.World, datatype: str) -> None:
    """Each typed field is taken for its datatypes."""
    field = FIELDS.get(datatype, f"{datatype.lower()}_contents")
    request = explicit(f"zero_{datatype}", field, datatype, [1, 0], [1, 1, 0])
    dtype = triton_infer.numbers(datatype, (1,)).dtype
    first, second = _raw(stub_of(asked).ModelInfer(request), dtype)
    assert (first.tolist(), second.tolist()) == ([1, 0], [1, 1, 0])


@cases.case(PEER, "explicit contents", EXAMPLES + "grpc_client.py")
def raw_contents_by_hand(asked: world.World) -> None:
    """A program without Triton's library fills in raw_input_contents itself."""
    request = service_pb2.ModelInferRequest(model_name="simple", id="my request id")
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
    request.raw_input_contents.extend([A.tobytes(), B.tobytes()])
    request.outputs.add(name="OUTPUT0")
    answer = stub_of(asked).ModelInfer(request)
    assert (answer.id, answer.model_name, answer.model_version) == ("my request id", "simple", "1")
    world.equal(_raw(answer, np.int32)[0], (A + B)[0])


@cases.both(PEER, "examples", EXAMPLES + "simple_{http,grpc}_infer_client.py")
def sum_and_difference(asked: world.World, protocol: str) -> None:
    """The first example of all."""
    world.same(
        asked.ask(protocol, "simple", {"INPUT0": A, "INPUT1": B}),
        {"OUTPUT0": A + B, "OUTPUT1": A - B},
    )


@cases.both(PEER, "examples", EXAMPLES + "simple_{http,grpc}_string_infer_client.py")
def texts_of_numbers(asked: world.World, protocol: str) -> None:
    """Numbers as texts, and text identities."""
    inputs = {f"INPUT{i}": np.char.mod("%d", x).astype(object) for i, x in enumerate((A, B))}
    answer = asked.ask(protocol, "simple_string", inputs)
    world.equal(answer["OUTPUT0"], np.char.mod("%d", A + B).astype(object))


@cases.both(PEER, "examples", EXAMPLES + "simple_{http,grpc}_async_infer_client.py")
def many_at_once(asked: world.World, protocol: str) -> None:
    """Many requests are under way at the same time."""
    pairs = [({"INPUT0": A + i, "INPUT1": B}, A + i + B) for i in range(MANY)]
    for (_, right), answer in zip(pairs, _at_once(asked, protocol, pairs), strict=True):
        world.equal(answer.as_numpy("OUTPUT0"), right)


def _at_once(asked: world.World, protocol: str, pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    if protocol == "http":
        with tritonclient.http.InferenceServerClient(asked.endpoint, concurrency=8) as client:
            started = [
                client.async_infer("simple", world.given(protocol, inputs)) for inputs, _ in pairs
            ]
            return [request.get_result() for request in started]
    answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    for number, (inputs, _) in enumerate(pairs):
        asked.grpc.async_infer("simple", world.given(protocol, inputs), _keeper(answers, number))
    kept = dict(answers.get(timeout=WAIT_S) for _ in pairs)
    return [kept[number] for number in range(len(pairs))]


def _keeper(answers: queue.SimpleQueue[Any], number: int) -> Callable[[Any, Any], None]:
    def keep(result: Any, error: Any) -> None:
        answers.put((number, error or result))

    return keep


@cases.both(PEER, "examples", EXAMPLES + "simple_{http,grpc}_aio_infer_client.py")
def inside_an_event_loop(asked: world.World, protocol: str) -> None:
    """The clients for asyncio."""

    async def ask() -> list[np.ndarray]:
        library: Any = tritonclient.http.aio if protocol == "http" else tritonclient.grpc.aio
        async with library.InferenceServerClient(asked.endpoint) as client:
            assert await client.is_server_ready()
            calls = [
                client.infer("simple", world.given(protocol, {"INPUT0": A + i, "INPUT1": B}))
                for i in range(MANY)
            ]
            return [answer.as_numpy("OUTPUT0") for answer in await asyncio.gather(*calls)]

    for number, answer in enumerate(asyncio.run(ask())):
        world.equal(answer, A + number + B)


@cases.case(PEER, "examples", EXAMPLES + "simple_grpc_custom_args_client.py, …keepalive_client.py")
def channel_arguments(asked: world.World) -> None:
    """A client with arguments and keep-alive of its own."""
    options = tritonclient.grpc.KeepAliveOptions(
        keepalive_time_ms=2**31 - 1, keepalive_timeout_ms=20000
    )
    with tritonclient.grpc.InferenceServerClient(
        asked.endpoint, keepalive_options=options
    ) as client:
        answer = client.infer("simple", world.given("grpc", {"INPUT0": A, "INPUT1": B}))
        world.equal(answer.as_numpy("OUTPUT1"), A - B)


@cases.both(PEER, "examples", EXAMPLES + "reuse_infer_objects_client.py")
def reused_objects(asked: world.World, protocol: str) -> None:
    """The same objects of inputs carry one request after the other."""
    inputs = world.given(protocol, {"INPUT0": A, "INPUT1": B})
    for addend in range(3):
        inputs[0].set_data_from_numpy(A + addend)
        answer = asked.triton(protocol).infer("simple", inputs)
        world.equal(answer.as_numpy("OUTPUT0"), A + addend + B)


@cases.both(PEER, "examples", EXAMPLES + "simple_{http,grpc}_health_metadata.py")
def health_and_metadata(asked: world.World, protocol: str) -> None:
    """Health, the server's metadata, a model's metadata, and an unknown model."""
    client = asked.triton(protocol)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    server, model = client.get_server_metadata(), client.get_model_metadata("simple")
    assert server["extensions"] if protocol == "http" else list(server.extensions)
    inputs = model["inputs"] if protocol == "http" else model.inputs
    assert len(inputs) == 2
    try:
        client.get_model_metadata("wrong_model_name")
    except tritonclient.http.InferenceServerException as error:
        assert "wrong_model_name" in error.message()
    else:
        raise AssertionError("the model is unknown")


@cases.case(PEER, "streams", EXAMPLES + "simple_grpc_aio_sequence_stream_infer_client.py")
def a_stream_of_requests(asked: world.World) -> None:
    """A stream is answered in its order, by the client for asyncio."""

    async def requests() -> AsyncIterator[Any]:
        for number in range(MANY):
            inputs = world.given("grpc", {"INPUT0": A + number, "INPUT1": B})
            yield {"model_name": "simple", "inputs": inputs, "request_id": str(number)}

    async def ask() -> list[tuple[str, np.ndarray]]:
        async with tritonclient.grpc.aio.InferenceServerClient(asked.endpoint) as client:
            return [
                (result.get_response().id, result.as_numpy("OUTPUT0"))
                async for result, error in client.stream_infer(requests())
                if error is None
            ]

    answers = asyncio.run(ask())
    assert [id_ for id_, _ in answers] == [str(number) for number in range(MANY)]
    for number, (_, total) in enumerate(answers):
        world.equal(total, A + number + B)


@cases.case(PEER, "streams", EXAMPLES + "simple_grpc_sequence_stream_infer_client.py")
def a_stream_with_callbacks(asked: world.World) -> None:
    """The same by the client with threads."""
    answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    with tritonclient.grpc.InferenceServerClient(asked.endpoint) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        for number in range(MANY):
            inputs = world.given("grpc", {"INPUT0": A + number, "INPUT1": B})
            client.async_stream_infer("simple", inputs)
        for number in range(MANY):
            answer: Any = answers.get(timeout=WAIT_S)
            world.equal(answer.as_numpy("OUTPUT0"), A + number + B)


@cases.both(PEER, "deadlines", "qa/L0_client_timeout")
def a_client_that_waits_long_enough(asked: world.World, protocol: str) -> None:
    """A time limit of the client is no hindrance to an answer that comes in time."""
    more = {"client_timeout": WAIT_S} if protocol == "grpc" else {"timeout": int(WAIT_S * 1e6)}
    answer = asked.infer(protocol, "simple", {"INPUT0": A, "INPUT1": B}, **more)
    world.equal(answer.as_numpy("OUTPUT0"), A + B)


@cases.case(PEER, "deadlines", "qa/L0_client_timeout")
def a_deadline_that_is_over(asked: world.World) -> None:
    """A deadline that passes is told in gRPC's words."""
    given = {"INPUT0": np.ones(1, np.float32)}
    asked.infer("grpc", "slow", given)
    try:
        asked.infer("grpc", "slow", given, client_timeout=0.2)
    except tritonclient.grpc.InferenceServerException as error:
        assert "Deadline Exceeded" in error.message(), error.message()
    else:
        raise AssertionError("it was answered")


@cases.both(PEER, "concurrency", "qa/L0_infer under load: many callers, each its own answer")
def many_callers(asked: world.World, protocol: str) -> None:
    """Callers of a model whose requests are joined get their own rows back."""
    wrong: list[str] = []

    def call(caller: int) -> None:
        client_type: Any = asked.triton(protocol).__class__
        with client_type(asked.endpoint) as client:
            for number in range(MANY):
                x = np.full((1 + number % 3, 4), caller * MANY + number, np.float32)
                answer = client.infer("joined", world.given(protocol, {"x": x})).as_numpy("y")
                if answer.shape != x.shape or (answer != x * 3).any():
                    wrong.append(f"{caller}/{number}")

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"{len(wrong)} of {8 * MANY} answers are another caller's"

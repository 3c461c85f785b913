"""A real gRPC server with a few models, against which the clients are tested."""

# ruff: noqa: N802, ARG002 - the generated base names the methods and their parameters

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

Tensor = pb.ModelMetadataResponse.TensorMetadata


def signature(inputs: dict[str, str], outputs: dict[str, str]) -> pb.ModelMetadataResponse:
    """Return metadata for inputs and outputs given as datatypes by name, of shape [-1, 2]."""
    takes, returns = (
        [Tensor(name=name, datatype=datatype, shape=[-1, 2]) for name, datatype in side.items()]
        for side in (inputs, outputs)
    )
    return pb.ModelMetadataResponse(
        versions=["1", "2"], platform="test", inputs=takes, outputs=returns
    )


class Inference(rpc.GRPCInferenceServiceServicer):
    """Answers each output with the input of the same position.

    `models` maps names to signatures; `seen` keeps requests with their metadata.
    """

    def __init__(self) -> None:
        self.models = {
            "echo": signature({"x": "FP32"}, {"y": "FP32"}),
            "pair": signature({"a": "FP32", "b": "INT64"}, {"c": "FP32", "d": "INT64"}),
            "words": signature({"x": "BYTES"}, {"y": "BYTES"}),
            "typed": signature({"x": "FP32"}, {"y": "FP32"}),
        }
        self.seen: list[tuple[str, Any, dict[str, str]]] = []

    def _record(
        self, method: str, request: object, name: str, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        self.seen.append((method, request, dict(context.invocation_metadata())))
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {name}")
        return self.models[name]

    def asked(self, method: str) -> list[object]:
        """The requests to one method so far."""
        return [request for called, request, _ in self.seen if called == method]

    def ModelMetadata(self, request: Any, context: Any) -> pb.ModelMetadataResponse:
        metadata = self._record("ModelMetadata", request, request.name, context)
        answer = pb.ModelMetadataResponse(name=request.name)
        answer.MergeFrom(metadata)
        return answer

    def ModelReady(self, request: Any, context: Any) -> pb.ModelReadyResponse:
        self._record("ModelReady", request, request.name, context)
        return pb.ModelReadyResponse(ready=request.name != "words")

    def RepositoryIndex(self, request: Any, context: Any) -> pb.RepositoryIndexResponse:
        entry = pb.RepositoryIndexResponse.ModelIndex(
            name="echo", version="1", state="READY", reason=""
        )
        return pb.RepositoryIndexResponse(models=[entry])

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        metadata = self._record("ModelInfer", request, request.model_name, context)
        if [tensor.name for tensor in request.inputs] != [
            tensor.name for tensor in metadata.inputs
        ]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "these are not its inputs")
        answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        names = {tensor.name for tensor in request.outputs} or {
            tensor.name for tensor in metadata.outputs
        }
        for tensor, raw, output in zip(
            request.inputs, request.raw_input_contents, metadata.outputs, strict=True
        ):
            if output.name in names:
                self._fill(answer, output.name, tensor, raw)
        return answer

    def _fill(self, answer: Any, name: str, tensor: Any, raw: bytes) -> None:
        output = answer.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        if answer.model_name == "typed":
            output.contents.fp32_contents.extend(np.frombuffer(raw, np.float32))
        else:
            answer.raw_output_contents.append(raw)


class Failing(rpc.GRPCInferenceServiceServicer):
    """Fails every prediction with this error; knows one model, `echo`."""

    def __init__(
        self, code: grpc.StatusCode, message: str, retry_after_s: float | None = None
    ) -> None:
        self.code, self.message, self.retry_after_s = code, message, retry_after_s

    def ModelMetadata(self, request: Any, context: Any) -> pb.ModelMetadataResponse:
        return signature({"x": "FP32"}, {"y": "FP32"})

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        if self.retry_after_s is not None:
            status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=self.message)
            delay = duration_pb2.Duration(nanos=int(self.retry_after_s * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
        context.abort(self.code, self.message)
        raise AssertionError("abort raises")


class Slow(Failing):
    """Answers no prediction before its caller gives up."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.CANCELLED, "the caller left")

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        left: futures.Future[None] = futures.Future()
        context.add_callback(lambda: left.set_result(None))
        left.result(timeout=30)
        return super().ModelInfer(request, context)


@contextlib.contextmanager
def serving(servicer: rpc.GRPCInferenceServiceServicer) -> Iterator[str]:
    """The endpoint of `servicer`, until the end of the block."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add: Any = rpc.add_GRPCInferenceServiceServicer_to_server
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()

"""MLServer's types, codecs and gRPC messages as a client. Runs in an environment of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
import httpx
import lines
import numpy as np
import pandas as pd
from mlserver import types
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.codecs.string import StringRequestCodec
from mlserver.grpc import converters, dataplane_pb2_grpc
from mlserver.grpc import dataplane_pb2 as pb


class Client:
    """A program that is written with MLServer's package, as its documentation shows it."""

    def __init__(self, endpoint: str) -> None:
        self._rest = httpx.Client(base_url=f"http://{endpoint}", timeout=60)
        channel = grpc.insecure_channel(endpoint)
        self._stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)

    def numpy(self, model: str, rows: Any, dtype: str = "float32", over: str = "rest") -> Any:
        """Ask with a matrix that NumpyRequestCodec encoded; return the decoded outputs."""
        request = NumpyRequestCodec.encode_request(np.array(rows, dtype))
        return self._decoded(self._ask(model, request, over))

    def named(self, model: str, name: str, rows: Any, over: str = "rest") -> Any:
        """Ask with a matrix of a name; return the decoded outputs."""
        array = np.array(rows, np.float32)
        request = types.InferenceRequest(inputs=[NumpyCodec.encode_input(name, array)])
        return self._decoded(self._ask(model, request, over))

    def columns(self, model: str, columns: dict[str, Any], over: str = "rest") -> Any:
        """Ask with one input of each name; return the decoded outputs."""
        inputs = [
            NumpyCodec.encode_input(name, np.array(values)) for name, values in columns.items()
        ]
        return self._decoded(self._ask(model, types.InferenceRequest(inputs=inputs), over))

    def frame(self, model: str, row: dict[str, Any], over: str = "rest") -> Any:
        """Ask with a data frame of one row that PandasCodec encoded."""
        request = PandasCodec.encode_request(pd.DataFrame([row]), use_bytes=over == "grpc")
        return self._decoded(self._ask(model, request, over))

    def texts(self, model: str, name: str, text: str, over: str = "rest") -> Any:
        """Ask with a text, and return the texts of the answer by StringRequestCodec."""
        entry = StringCodec.encode_input(name, [text], use_bytes=over == "grpc")
        answer = self._ask(model, types.InferenceRequest(inputs=[entry], id="7"), over)
        decoded = StringRequestCodec.decode_response(answer)
        return {"id": answer.id, "texts": list(decoded)}

    def bare(self, model: str, tensor: dict[str, Any], version: str = "") -> Any:
        """Ask by a plain dict with the path of a version, as the README of each runtime does."""
        path = f"/versions/{version}" if version else ""
        answer = self._rest.post(f"/v2/models/{model}{path}/infer", json={"inputs": [tensor]})
        answer.raise_for_status()
        return answer.json()

    def management(self, model: str) -> Any:
        """Return the names of the repository, and a model's metadata over gRPC."""
        index = self._rest.post("/v2/repository/index", json={}).raise_for_status().json()
        listed = types.RepositoryIndexResponse.model_validate(index)
        metadata = self._stub.ModelMetadata(pb.ModelMetadataRequest(name=model))
        rest = self._rest.get(f"/v2/models/{model}").raise_for_status().json()
        return {
            "names": [entry.name for entry in listed.root],
            "grpc": [metadata.name, [entry.name for entry in metadata.inputs]],
            "rest": types.MetadataModelResponse.model_validate(rest).name,
            "ready": self._stub.ModelReady(pb.ModelReadyRequest(name=model)).ready,
        }

    def _ask(self, model: str, request: types.InferenceRequest, over: str) -> Any:
        if over == "grpc":
            message = converters.ModelInferRequestConverter.from_types(
                request, model_name=model, model_version=None
            )
            return converters.ModelInferResponseConverter.to_types(self._stub.ModelInfer(message))
        body = json.loads(request.model_dump_json())
        answer = self._rest.post(f"/v2/models/{model}/infer", json=body)
        if answer.is_error:
            raise RuntimeError(f"{answer.status_code} {answer.text}")
        return types.InferenceResponse.model_validate_json(answer.text)

    def _decoded(self, answer: Any) -> Any:
        return {
            output.name: np.asarray(NumpyCodec.decode_output(output)).tolist()
            for output in answer.outputs
        }


if __name__ == "__main__":
    lines.serve(Client(sys.argv[1]))

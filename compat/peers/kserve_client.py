"""KServe's SDK: its REST and gRPC clients. Runs in an environment of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import lines
import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput


class Client:
    """Both clients of one server."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._url = f"http://{endpoint}"
        self._loop = asyncio.new_event_loop()

    def _rest(self, protocol: str) -> Any:
        return InferenceRESTClient(RESTConfig(protocol=protocol, retries=0, timeout=60))

    def _run(self, call: Any) -> Any:
        return self._loop.run_until_complete(call)

    def body(self, protocol: str, model: str, body: Any) -> Any:
        """Return the answer to a body that was written by hand."""
        answer = self._run(self._rest(protocol).infer(self._url, body, model_name=model))
        return answer if isinstance(answer, dict) else outputs_of(answer)

    def infer(
        self,
        model: str,
        inputs: list[Any],
        is_binary: bool = False,
        outputs: list[str] | None = None,
        over: str = "rest",
    ) -> Any:
        """Return a V2 answer. An input is its name, datatype, shape and values."""
        tensors = []
        for name, datatype, shape, data in inputs:
            tensors.append(InferInput(name=name, shape=shape, datatype=datatype))
            dtype = {"BYTES": object, "INT32": np.int32, "FP64": np.float64}.get(
                datatype, np.float32
            )
            tensors[-1].set_data_from_numpy(
                np.array(data, dtype).reshape(shape), binary_data=is_binary
            )
        wanted = [RequestedOutput(name, {"binary_data": is_binary}) for name in outputs or ()]
        request = InferRequest(
            model_name=model, infer_inputs=tensors, request_outputs=wanted or None, request_id="7"
        )
        if over == "grpc":
            return outputs_of(self._run(self._grpc(request)))
        return outputs_of(self._run(self._rest("v2").infer(self._url, request, model_name=model)))

    async def _grpc(self, request: InferRequest) -> Any:
        client = InferenceGRPCClient(self._endpoint, retries=0, timeout=60)
        try:
            return await client.infer(request)
        finally:
            await client.close()

    def health(self, protocol: str, model: str) -> list[bool]:
        """Return whether the server is live, and whether it and a model are ready."""
        return list(self._run(self._health(protocol, model)))

    async def _health(self, protocol: str, model: str) -> tuple[bool, ...]:
        if protocol == "grpc":
            client = InferenceGRPCClient(self._endpoint, retries=0, timeout=60)
            asked = client.is_server_live(), client.is_server_ready(), client.is_model_ready(model)
            answers = [bool(await call) for call in asked]
            await client.close()
            return tuple(answers)
        rest = self._rest(protocol)
        live = await rest.is_server_live(self._url)
        # KServe's V1 has no readiness of the server.
        ready = protocol == "v1" or await rest.is_server_ready(self._url)
        return bool(live), bool(ready), bool(await rest.is_model_ready(self._url, model))


def outputs_of(answer: Any) -> Any:
    """Return the outputs of an answer: name, datatype, shape, values, and the id."""
    outputs = [
        [output.name, output.datatype, list(output.shape), _values(output)]
        for output in answer.outputs
    ]
    return {"outputs": outputs, "id": answer.id}


def _values(output: Any) -> Any:
    array = np.asarray(output.as_numpy())
    if array.dtype.hasobject:
        return [value.decode() if isinstance(value, bytes) else value for value in array.flat]
    return array.ravel().tolist()


if __name__ == "__main__":
    lines.serve(Client(sys.argv[1]))

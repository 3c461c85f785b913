"""The server to compare with: grpc.aio and ONNX Runtime, one model, no routing, no checks."""

from __future__ import annotations

import argparse
import asyncio

import grpc
import numpy as np
import onnxruntime

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc


class Inference(rpc.GRPCInferenceServiceServicer):
    """ModelInfer for FP32 `x` to FP32 `y`, raw."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    async def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext) -> pb.ModelInferResponse:  # noqa: N802, ARG002 - the generated base names it
        """One prediction."""
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
        y = self.session.run(None, {"x": x})[0]
        output = pb.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=y.shape)
        return pb.ModelInferResponse(model_name=request.model_name, outputs=[output], raw_output_contents=[y.tobytes()])


def session(path: str) -> onnxruntime.InferenceSession:
    """One thread: a tiny model is slower with more."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


async def serve(path: str, endpoint: str) -> None:
    """Until interrupted."""
    server = grpc.aio.server()
    rpc.add_GRPCInferenceServiceServicer_to_server(Inference(session(path)), server)
    server.add_insecure_port(endpoint)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("endpoint")
    args = parser.parse_args()
    try:
        asyncio.run(serve(args.model, args.endpoint))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

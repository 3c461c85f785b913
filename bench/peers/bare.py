"""The server to compare with: grpc.aio and ONNX Runtime, a dictionary of models, no routing."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import onnxruntime
import sessions

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Inference(rpc.GRPCInferenceServiceServicer):
    """ModelInfer from FP32 `x` to FP32 `y`, raw."""

    def __init__(self, models: dict[str, onnxruntime.InferenceSession]) -> None:
        self.models = models

    async def ModelInfer(  # noqa: N802
        self,
        request: pb.ModelInferRequest,
        context: grpc.aio.ServicerContext,  # noqa: ARG002
    ) -> pb.ModelInferResponse:
        """Return one prediction."""
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(
            tuple(request.inputs[0].shape)
        )
        y = self.models[request.model_name].run(None, {"x": x})[0]
        output = pb.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=y.shape)
        return pb.ModelInferResponse(
            model_name=request.model_name, outputs=[output], raw_output_contents=[y.tobytes()]
        )


async def serve(models: dict[str, str], port: int) -> None:
    """Serve until the process ends."""
    loaded = {name: sessions.load(path) for name, path in models.items()}
    server = grpc.aio.server(options=UNLIMITED)
    rpc.add_GRPCInferenceServiceServicer_to_server(Inference(loaded), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    args = sessions.arguments(__doc__)
    sessions.end_by_sigterm()
    asyncio.run(serve(args.models, args.port))


if __name__ == "__main__":
    main()

"""Ray Serve over gRPC with `serve.multiplexed`.

Its settings come from the environment, as its documentation has them.
"""

from __future__ import annotations

import signal
from typing import Any

import inference_pb2 as pb
import numpy as np
import onnxruntime
import ray
import sessions
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

SERVICE = "inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
RESIDENT_MAX = 8
ONGOING_MAX = 1000


@serve.deployment(
    num_replicas=1, max_ongoing_requests=ONGOING_MAX, ray_actor_options={"num_cpus": 0}
)
class Pool:
    """Models by the id in the request's metadata."""

    def __init__(self, models: dict[str, str]) -> None:
        self.models = models

    @serve.multiplexed(max_num_models_per_replica=RESIDENT_MAX)
    async def session(self, name: str) -> onnxruntime.InferenceSession:
        """Return the model's session, loaded when first asked for."""
        return sessions.load(self.models[name])

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:  # noqa: N802 - the protocol's name
        """Return one prediction."""
        session = await self.session(serve.get_multiplexed_model_id())
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(
            tuple(request.inputs[0].shape)
        )
        y = session.run(None, {"x": x})[0]
        output = pb.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=y.shape)
        return pb.ModelInferResponse(
            model_name=request.model_name, outputs=[output], raw_output_contents=[y.tobytes()]
        )


def main() -> None:
    args = sessions.arguments(__doc__)
    sessions.end_by_sigterm()
    ray.init(include_dashboard=False, log_to_driver=False)
    try:
        http = HTTPOptions(host="127.0.0.1", port=sessions.free_port())
        serve.start(
            http_options=http,
            grpc_options=gRPCOptions(port=args.port, grpc_servicer_functions=[SERVICE]),
        )
        deployment: Any = Pool  # the decorator's, which has no types
        serve.run(deployment.bind(args.models), name="pool", route_prefix="/pool")
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()

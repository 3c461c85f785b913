"""PyTriton: Triton's C++ front, and a Python function behind it.

The function takes whole batches, which are formed without waiting.
"""

from __future__ import annotations

import numpy as np
import sessions
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

ROWS_MAX = 16_384


def bind(triton: Triton, name: str, path: str) -> None:
    """Have Triton serve the file."""
    session = sessions.load(path)
    (x,), (y,) = session.get_inputs(), session.get_outputs()

    @batch
    def infer(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": session.run(None, {"x": x})[0]}

    triton.bind(
        model_name=name,
        infer_func=infer,
        inputs=[Tensor(name="x", dtype=np.float32, shape=(x.shape[1],))],
        outputs=[Tensor(name="y", dtype=np.float32, shape=(y.shape[1],))],
        config=ModelConfig(
            max_batch_size=ROWS_MAX,
            batching=True,
            batcher=DynamicBatcher(max_queue_delay_microseconds=0),
        ),
        strict=False,
    )


def main() -> None:
    args = sessions.arguments(__doc__)
    settings = TritonConfig(
        http_address="127.0.0.1",
        http_port=sessions.free_port(),
        grpc_address="127.0.0.1",
        grpc_port=args.port,
        metrics_port=sessions.free_port(),
    )
    with Triton(config=settings) as triton:
        for name, path in args.models.items():
            bind(triton, name, path)
        sessions.end_by_sigterm()
        triton.serve()


if __name__ == "__main__":
    main()

"""MLServer with a model class of our own, since it has none for ONNX.

It runs without worker processes, which is its fastest for a tiny model.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy as np
import sessions
from mlserver import MLModel, MLServer, ModelSettings, Settings, types
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters

MESSAGE_BYTES_MAX = 64 << 20


class OnnxModel(MLModel):
    """One ONNX file."""

    async def load(self) -> bool:
        """Load the session."""
        self.session = sessions.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Return one prediction."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = self.session.run(None, {"x": np.asarray(x, np.float32)})[0]
        return types.InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)]
        )


async def serve(models: dict[str, str], port: int, folder: Path) -> None:
    """Serve until SIGTERM, which MLServer handles itself."""
    settings = Settings(
        host="127.0.0.1",
        grpc_port=port,
        http_port=sessions.free_port(),
        metrics_port=sessions.free_port(),
        metrics_dir=str(folder),
        parallel_workers=0,
        debug=False,
        grpc_max_message_length=MESSAGE_BYTES_MAX,
    )
    served = [
        ModelSettings(name=name, implementation=OnnxModel, parameters=ModelParameters(uri=path))
        for name, path in models.items()
    ]
    await MLServer(settings).start(served)


def main() -> None:
    args = sessions.arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve(args.models, args.port, Path(folder)))


if __name__ == "__main__":
    main()

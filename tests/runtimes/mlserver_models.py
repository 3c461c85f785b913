"""Classes as users write them for MLServer, and how tests load them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import python

# A model with a file of its own, settings of its own, and arrays by their content type.
LINEAR = """
    import json
    from mlserver import MLModel, types
    from mlserver.codecs import NumpyCodec
    from mlserver.logging import logger
    from mlserver.utils import get_model_uri
    import mlserver
    from helper import scaled

    class Linear(MLModel):
        async def load(self) -> bool:
            uri = await get_model_uri(self._settings, wellknown_filenames=["weights.json"])
            with open(uri) as file:
                self.weight = json.load(file)["a"]
            self.bias = self.settings.parameters.extra["bias"]
            mlserver.register("my_metric", "what it counts")
            logger.info("loaded")
            self.ready = True
            return self.ready

        async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
            mlserver.log(my_metric=1)
            outputs = []
            for tensor in payload.inputs:
                array = self.decode(tensor, default_codec=NumpyCodec)
                outputs.append(NumpyCodec.encode_output(tensor.name, scaled(array, self)))
            return types.InferenceResponse(
                id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs
            )
"""
HELPER = "def scaled(array, model):\n    return array * model.weight + model.bias\n"

# MLServer's documentation gives one text the shape of its length.
HELLO = """
    import json
    from mlserver import MLModel, types
    from mlserver.codecs import StringCodec

    class Hello(MLModel):
        async def predict(self, payload):
            (name,) = StringCodec.decode_input(payload.inputs[0])
            answer = {"hello": json.loads(name), "raw": str(payload.inputs[0].data[0])}
            text = json.dumps(answer).encode()
            return types.InferenceResponse(
                id=payload.id,
                model_name=self.name,
                outputs=[
                    types.ResponseOutput(
                        name="echo", shape=[len(text)], datatype="BYTES", data=[text],
                        parameters=types.Parameters(content_type="str"),
                    )
                ],
            )
"""

ARGS = """
    from typing import List, Optional
    import numpy as np
    import pandas as pd
    from mlserver import MLModel
    from mlserver.codecs import decode_args

    class Args(MLModel):
        @decode_args
        async def predict(self, x: np.ndarray, names: Optional[List[str]]) -> List[str]:
            return [f"{name}={value:g}" for name, value in zip(names or [], x.sum(axis=1))]

    class Frame(MLModel):
        @decode_args
        async def predict(self, frame: pd.DataFrame) -> np.ndarray:
            return (frame["a"] * len(frame.columns) + frame["word"].str.len()).to_numpy()
"""

# What a class sees of a request, as JSON.
SEES = """
    import json
    from mlserver import MLModel, types
    from mlserver.codecs import StringCodec, Base64Codec, DatetimeCodec, PandasCodec

    class Sees(MLModel):
        async def predict(self, payload):
            said = payload.parameters
            first = payload.inputs[0]
            decoded = self.decode(first)
            seen = {
                "id": payload.id,
                "tenant": said.headers.get("x-tenant"),
                "extra": getattr(said, "scale", None),
                "shape": first.shape,
                "datatype": first.datatype,
                "data": getattr(first.data, "root", first.data),
                "decoded": repr(decoded),
                "outputs": [output.name for output in payload.outputs or []],
            }
            return types.InferenceResponse(
                model_name=self.name,
                parameters=types.Parameters(took=3),
                outputs=[StringCodec.encode_output("seen", [json.dumps(seen, default=repr)])],
            )
"""


def write(folder: Path, name: str, source: str, **settings: Any) -> Path:
    """Write a model's folder: its module `models`, and its settings."""
    (folder / "models.py").write_text(textwrap.dedent(source))
    settings = {"name": "other", "implementation": f"models.{name}", **settings}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    return folder


def load(folder: Path, implementation: str, **fields: Any) -> model_runtime.LoadedModel:
    """Load the class as the worker does it."""
    spec = model.ModelSpec(
        model.ModelId("m"), str(folder), runtime=implementation, **{"trust": True, **fields}
    )
    return python.PythonRuntime().load(model_runtime.Artifact(folder, "d", 1), spec, "cpu")

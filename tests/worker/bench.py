"""A worker alone: models as users' classes, a storage that a test steers, requests over a Unix socket."""

from __future__ import annotations

import asyncio
import hashlib
import textwrap
from collections import Counter
from dataclasses import replace

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import catalog, catalog_sync, desired, model
from meshserve.protocol.pb import inference_pb2 as pb

MEMORY = model.Footprint(1 << 30)
INFER = "/inference.GRPCInferenceService/ModelInfer"
CALL = {"content-type": "application/grpc"}

DOUBLED = """
    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]
        batchable = True

        def predict(self, inputs):
            if (inputs["x"] < 0).any():
                raise ValueError("no negative größe")
            return {"y": inputs["x"] * 2}
"""


class Shelf:
    """A storage. `gate` holds fetches up while it is not set; `failure` is what they end with."""

    def __init__(self, folder):
        self.folder = folder
        self.fetches = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure = None
        self.held = Counter()
        self.is_closed = False

    def put(self, name, source=DOUBLED):
        """A model's folder; returns its URI."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(textwrap.dedent(source))
        return str(folder)

    async def fetch(self, uri, _checksum):
        self.fetches[uri] += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        path = self.folder / uri
        content = b"".join(file.read_bytes() for file in sorted(path.rglob("*.py")))
        if not content:
            raise errors.LoadFailed(f"there is nothing at {uri}")
        return model_runtime.Artifact(
            path, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)
        )

    def hold(self, artifact):
        self.held[artifact.digest] += 1

    def release(self, artifact):
        self.held[artifact.digest] -= 1

    async def close(self):
        self.is_closed = True


def settings(**changes):
    return replace(desired.WorkerSettings(memory=MEMORY), **changes)


def spec(name, uri, version="1", **fields):
    return model.ModelSpec(
        model.ModelId(name, version), uri, runtime="python", trust=True, **fields
    )


def told(of, *changes):
    """Have a host or worker take these changes in, after a whole empty catalog if it has none yet."""
    seen = getattr(of, "host", of).replica
    if not seen.is_complete:
        of.apply(catalog_sync.SyncStep(1, (), is_first=True, is_last=True))
    of.apply(catalog_sync.SyncStep(seen.revision + 1, changes))


def declared(*specs):
    return tuple(catalog.ModelDeclared(each) for each in specs)


def infer(name="doubled", rows=((1.0, 2.0),), version="", **fields):
    """A raw ModelInferRequest."""
    array = np.array(rows, np.float32)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=array.shape)
    return pb.ModelInferRequest(
        model_name=name,
        model_version=version,
        inputs=[tensor],
        raw_input_contents=[array.tobytes()],
        **fields,
    )

"""What tests of a worker share: models as users' classes, a storage that a test steers, calls."""

from __future__ import annotations

import asyncio
import hashlib
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import catalog, catalog_sync, desired, model
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker.models import batcher, joining, model_host

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


class FakeStorage:
    """A storage. Fetches wait while `gate` is not set, and raise `failure` if there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetches: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.held: Counter[str] = Counter()
        self.touched: Counter[str] = Counter()
        self.is_closed = False
        self.earlier: dict[str, str] = {}

    def put(self, name: str, source: str = DOUBLED) -> str:
        """Write a model's folder and return its URI."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(textwrap.dedent(source))
        return str(folder)

    async def fetch(
        self,
        uri: str,
        _checksum: str,
        *,
        verifies: bool = False,  # noqa: ARG002
        file_root: str = "",  # noqa: ARG002
    ) -> Any:
        self.fetches[uri] += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        path = self.folder / uri
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix in (".py", ".onnx", ".pt", ".pt2")
        ]
        content = b"".join(file.read_bytes() for file in files)
        if not content:
            raise errors.LoadFailed(f"there is nothing at {uri}")
        return model_runtime.Artifact(
            path, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)
        )

    async def is_untouched(self, artifact: model_runtime.Artifact) -> bool:
        return self.touched.pop(artifact.digest, 0) == 0

    async def find_earlier(self, uri: str) -> str:
        return self.earlier.get(uri, "")

    def give_up(self, uri: str) -> None:
        """Keep everything."""

    def hold(self, artifact: model_runtime.Artifact) -> None:
        self.held[artifact.digest] += 1

    def release(self, artifact: model_runtime.Artifact) -> None:
        self.held[artifact.digest] -= 1

    async def close(self) -> None:
        self.is_closed = True


def settings(**changes: Any) -> desired.WorkerSettings:
    return replace(desired.WorkerSettings(memory=MEMORY), **changes)


def spec(name: str, uri: str, version: str = "1", **fields: Any) -> model.ModelSpec:
    return model.ModelSpec(
        model.ModelId(name, version), uri, runtime="python", trust=True, **fields
    )


def apply(served: Any, *changes: catalog.Change) -> None:
    """Apply catalog changes to a host or worker, after a whole empty catalog if it has none yet."""
    seen = getattr(served, "host", served).catalog_follower
    if not seen.is_complete:
        served.apply(catalog_sync.SyncStep(1, (), is_first=True, is_last=True))
    served.apply(catalog_sync.SyncStep(seen.revision + 1, changes))


def declared(*specs: model.ModelSpec) -> tuple[catalog.ModelDeclared, ...]:
    return tuple(catalog.ModelDeclared(spec_) for spec_ in specs)


def infer(
    name: str = "doubled",
    rows: list[float | list[float]] | tuple[tuple[float, float]] = ((1.0, 2.0),),
    version: str = "",
    **fields: Any,
) -> pb.ModelInferRequest:
    """Return a ModelInferRequest with raw contents."""
    array = np.array(rows, np.float32)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=array.shape)
    return pb.ModelInferRequest(
        model_name=name,
        model_version=version,
        inputs=[tensor],
        raw_input_contents=[array.tobytes()],
        **fields,
    )


def make_quick(host: model_host.ModelHost, id_: model.ModelId) -> None:
    """Make the runs of a model that is in memory look as short as a tiny model's."""
    key = host.residency.find_ready(id_)
    assert key is not None
    resident = host._effects.resident(key)
    resident.batcher = batcher.Batcher(
        resident.loaded_copy.loaded,
        batcher.BatchLimits(1, 8, 1),
        resident.batcher._places,
        1e-6,
        joining.Joining(joining.JoinState.NEVER),
    )

"""A prediction on a ready copy runs few files of ours: a reader can follow it in one sitting."""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

import meshserve
from meshserve.core.values import catalog, model
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker import worker
from tests.runtimes.test_onnx import linear
from tests.worker import helpers

PACKAGE = Path(meshserve.__file__).parent
FILES = [
    "core/values/model_figures.py",
    "core/values/model_stats.py",
    "protocol/http_protocol.py",
    "protocol/inference.py",
    "protocol/repeated_calls.py",
    "protocol/tensors.py",
    "runtimes/onnx.py",
    "worker/http/worker_app.py",
    "worker/models/batcher.py",
    "worker/models/model_host.py",
    "worker/models/run_journal.py",
]


class FilesRun:
    """Collects the files of this package whose code runs on this thread."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def __enter__(self) -> Any:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: Any, event: Any, _argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            self.paths.add(str(path.relative_to(PACKAGE)))


FRAME_FILES = sorted({*FILES, "protocol/frames.py"} - {"protocol/http_protocol.py"})


async def ask_by_frame(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
) -> bytes:
    """Send the same as a frame, as Envoy's module in C does."""
    block = f"POST\n{paths.MODEL_INFER}\nhost\nx\n".encode()
    writer.write(struct.pack("<BBBxIII", 0xF7, 1, 1, 1, len(block), len(body)) + block + body)
    head = struct.unpack("<BBHIII", await reader.readexactly(16))
    return (await reader.readexactly(head[4] + head[5]))[head[4] :]


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> bytes:
    """Send one ModelInfer call over the socket and read its answer."""
    head = (
        f"POST {paths.MODEL_INFER} HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n"
        f"te: trailers\r\ngrpc-timeout: 5S\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


@pytest.mark.parametrize(
    ("send", "files_run"), [(ask, FILES), (ask_by_frame, FRAME_FILES)], ids=["http", "frame"]
)
async def test_a_prediction_on_a_ready_copy_runs_eleven_files(
    pool_worker: worker.PoolWorker, storage: helpers.FakeStorage, send: Any, files_run: list[str]
) -> None:
    id_ = model.ModelId("tiny")
    linear(storage.folder / "tiny" / "tiny.onnx")
    spec = model.ModelSpec(id_, str(storage.folder / "tiny"))
    helpers.apply(pool_worker, catalog.ModelDeclared(spec))
    await pool_worker.ensure_loaded(id_, 60)
    helpers.make_quick(pool_worker.host, id_)
    row = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 64])
    body = pb.ModelInferRequest(
        model_name="tiny", inputs=[row], raw_input_contents=[bytes(4 * 64)]
    ).SerializeToString()
    reader, writer = await asyncio.open_unix_connection(pool_worker.address.socket_path)
    for ticking in pool_worker._ticking:
        ticking.cancel()
    await send(reader, writer, body)
    with FilesRun() as files:
        answer = await send(reader, writer, body)
    writer.close()
    assert pb.ModelInferResponse.FromString(answer).model_name == "tiny"
    assert sorted(files.paths) == files_run

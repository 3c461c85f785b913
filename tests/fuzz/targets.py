"""What is fuzzed: each target reads bytes, and may refuse them only as its callers expect.

Any other exception, a crash, a hang and gigabytes of memory are findings.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from meshserve import config, errors
from meshserve.config import samples
from meshserve.control.api import (
    modelmesh,
    rest_routes,
    triton_load_config,
    triton_repository,
    uploads,
)
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.protocol import compression, inference, rest, v1
from meshserve.protocol.pb import modelmesh_pb2
from meshserve.runtimes import files, lightgbm, onnx_graph, xgboost
from meshserve.storage import archives, mlserver_settings, triton_config
from tests.fuzz import archive_targets, wire_targets

Target = Callable[[bytes], None]

FILE_BYTES_MAX = 1 << 20
SIGNATURES = (
    model.Signature(
        (model.TensorSpec("x", "FP32", (-1, 4)),), (model.TensorSpec("y", "FP32", (-1, 2)),)
    ),
    model.Signature(
        (model.TensorSpec("t", "BYTES", (-1,)), model.TensorSpec("n", "INT64", (-1, 2))), ()
    ),
    model.Signature((model.TensorSpec("t", "BYTES", (1,)),), ()),
    model.Signature(
        (model.TensorSpec("x", "FP64", (-1, 3)),),
        (model.TensorSpec("y", "FP64", (-1,)),),
        has_batch_dimension=True,
        table=model.Table(("a", "b", "c")),
    ),
    model.Signature((), (), is_open=True),
)


@functools.cache
def _folder() -> Path:
    # In memory: a target writes thousands of files a second.
    memory = "/dev/shm"
    return Path(
        tempfile.mkdtemp(prefix="ms-fuzz-", dir=memory if os.access(memory, os.W_OK) else None)
    )


@contextlib.contextmanager
def _file(name: str, content: bytes) -> Iterator[Path]:
    path = _folder() / name
    path.write_bytes(content[:FILE_BYTES_MAX])
    yield path


def _artifact(path: Path, content: bytes) -> model_runtime.Artifact:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return model_runtime.Artifact(path, digest, len(content))


def _check(call: inference.InferCall) -> None:
    for signature in SIGNATURES:
        with contextlib.suppress(errors.InvalidRequest):
            inference.row_count(inference.check_inputs(call, signature), signature)


def rest_infer(data: bytes) -> None:
    """Read V2 JSON and binary tensors; the first line is the length of the JSON."""
    length, _, body = data.partition(b"\n")
    headers = [(rest.LENGTH, length)] if length else []
    with contextlib.suppress(errors.InvalidRequest):
        _check(rest.decode_infer(body, headers).call)


def rest_raw(data: bytes) -> None:
    """Read a raw binary request."""
    for signature in SIGNATURES:
        with contextlib.suppress(errors.InvalidRequest):
            _check(rest.decode_raw_binary(data, signature).call)


def v1_predict(data: bytes) -> None:
    """Read V1 rows and columns."""
    for signature in SIGNATURES:
        with contextlib.suppress(errors.InvalidRequest):
            _check(v1.decode_predict(data, signature).call)


def grpc_infer(data: bytes) -> None:
    """Read a ModelInferRequest with typed and raw contents."""
    with contextlib.suppress(errors.InvalidRequest):
        _check(inference.decode_infer(data))


def inflate(data: bytes) -> None:
    """Inflate a compressed body; the first line is the coding."""
    coding, _, body = data.partition(b"\n")
    limit = 1 << 20
    headers = [
        (b"content-encoding", coding),
        (compression.BYTES_MAX_HEADER.encode(), str(limit).encode()),
    ]
    with contextlib.suppress(errors.InvalidRequest, errors.PayloadTooLarge):
        assert len(compression.inflate(body, headers)) <= max(limit, len(body))


def triton_pbtxt(data: bytes) -> None:
    """Read a config.pbtxt; ValueError says what is wrong."""
    with contextlib.suppress(ValueError):
        triton_config.read(data.decode()).description({})


def triton_json(data: bytes) -> None:
    """Read the configuration of a load request."""
    with contextlib.suppress(errors.InvalidRequest, UnicodeDecodeError):
        declared = triton_load_config.read(data.decode())
        spec = model.ModelSpec(model.ModelId("m"), "/m")
        triton_load_config.redeclare_all([spec], declared)


def model_settings(data: bytes) -> None:
    """Read a model-settings.json; ValueError says what is wrong."""
    with contextlib.suppress(ValueError):
        mlserver_settings.read(data)


def config_yaml(data: bytes) -> None:
    """Read a config.yaml."""
    with _file("config.yaml", data) as path, contextlib.suppress(errors.ConfigInvalid):
        config.document(config.load(path))


def model_entry(data: bytes) -> None:
    """Read the body of a registration, and the same entry by ModelMesh."""
    with contextlib.suppress(errors.InvalidRequest, errors.ConfigInvalid):
        entry = {**rest_routes.json_object(data, "the body"), "name": "m"}
        spec = config.parse_model(entry, may_read=False).spec(1.0, model.FROM_API)
        rest_routes.json_response({"options": dict(spec.options)})
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(errors.InvalidRequest, errors.ConfigInvalid):
        info = modelmesh_pb2.ModelInfo(type=text, path="s3://b/m", key=text)
        config.parse_model({"name": "m", **modelmesh.entry_from(info)}, may_read=False)


def load_request(data: bytes) -> None:
    """Read the parameters of a load request and the names of its files."""
    with contextlib.suppress(errors.InvalidRequest):
        body = rest_routes.json_object(data, "the body")
        for key in triton_repository.parameters_in(body):
            uploads.parse_name(key.removeprefix(triton_repository.FILE))


def sample_npz(data: bytes) -> None:
    """Read a sample in an archive of numpy; ValueError says what is wrong."""
    with _file("sample.npz", data) as path, contextlib.suppress(ValueError):
        values = samples.read_sample(str(path), None)
        if isinstance(values, dict):
            samples.check_values(values)


def archive(data: bytes) -> None:
    """Unpack an archive: a zip, else a tar of any compression."""
    name = "m.zip" if data[:2] == b"PK" else "m.tar.gz"
    target = _folder() / "unpacked"
    with _file(name, data) as path, contextlib.suppress(errors.LoadFailed):
        try:
            inside = archives.unpack(path, target, 4 << 20, 1000)
            assert inside.resolve().is_relative_to(target.resolve())
        finally:
            shutil.rmtree(target, ignore_errors=True)


def onnx_file(data: bytes) -> None:
    """Read the graph of an ONNX file."""
    with contextlib.suppress(onnx_graph.Unreadable):
        onnx_graph.read(data)


def file_kind(data: bytes) -> None:
    """Tell what kind of model a file without a known name is."""
    with _file("model", data) as path:
        files.zip_members(path)
        for layout in (xgboost.LAYOUT, lightgbm.LAYOUT):
            layout.find(path)


def xgboost_file(data: bytes) -> None:
    """Load an XGBoost file, which is checked before the library reads it."""
    name = "m.json" if data[:1] == b"{" and data[1:2] != b"L" else "m.ubj"
    with _file(name, data) as path, contextlib.suppress(errors.LoadFailed):
        spec = model.ModelSpec(model.ModelId("m"), str(path), "xgboost")
        xgboost.XgboostRuntime().load(_artifact(path, data), spec, "cpu")


def lightgbm_file(data: bytes) -> None:
    """Load a LightGBM file, which is checked before the library reads it."""
    with _file("m.txt", data) as path, contextlib.suppress(errors.LoadFailed):
        spec = model.ModelSpec(model.ModelId("m"), str(path), "lightgbm")
        lightgbm.LightgbmRuntime().load(_artifact(path, data), spec, "cpu")


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(rest_infer, rest_raw, v1_predict, grpc_infer, inflate),
        *(triton_pbtxt, triton_json, model_settings, config_yaml, model_entry, load_request),
        *(sample_npz, archive, onnx_file, file_kind, xgboost_file, lightgbm_file),
        archive_targets.skops_archive,
        *(archive_targets.exported_samples, wire_targets.grpc_repeated),
        *(wire_targets.engine_events, wire_targets.generate_body, wire_targets.process_frame),
        wire_targets.gateway_keys,
    )
}

"""Good inputs of every target, from which fuzzing begins."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import pickle
import socket
import tarfile
import tempfile
import zipfile
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import xgboost

from meshserve.protocol.pb import inference_pb2
from meshserve.storage import triton_config
from meshserve.worker.models import tensor_frames
from tests.fuzz import archive_targets

V2 = {
    "id": "1",
    "parameters": {"binary_data_output": True},
    "inputs": [
        {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2.5, -3e1, None]},
        {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "\u00e9"]},
        {"name": "n", "shape": [1, 2], "datatype": "INT64", "data": [[1, 9007199254740993]]},
    ],
    "outputs": [{"name": "y", "parameters": {"classification": 2, "binary_data": False}}],
}
BINARY = {
    "inputs": [
        {
            "name": "x",
            "shape": [1, 4],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 16},
        }
    ]
}
PBTXT = """\
name: "m" backend: "onnxruntime" max_batch_size: 8
input [{name: "x" data_type: TYPE_FP32 dims: [4] reshape: {shape: [2, 2]} optional: true}]
output [{name: "y" data_type: TYPE_STRING dims: [1] label_filename: "labels.txt"}]
version_policy: {latest: {num_versions: 2}} dynamic_batching: {}
parameters: {key: "k" value: {string_value: "v"}} default_model_filename: "m.onnx"
"""
SETTINGS = {
    "name": "m",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "max_batch_size": 4,
    "parameters": {"uri": "./m.joblib", "version": "v1", "extra": {"a": 1}},
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
}
YAML = """\
gateway: {listen: "127.0.0.1:8080", request_bytes_max: 1MiB, keys: [{client: c, key: k}]}
pools: {default: {workers: 2, memory: 1GiB, idle_unload_s: 5.5}}
models:
  - &m {name: a, uri: s3://b/a, version: 2, options: {file: x, n: [1, .inf]}, aliases: [b]}
  - {<<: *m, name: c, sample: {x: [[1.0, null]]}}
llms: [{name: q, uri: "hf://a/b", engine: {max_model_len: 4096}, replicas: {min: 0, max: 2}}]
"""
ENTRY = {
    "uri": "s3://b/m",
    "version": "2",
    "runtime": "onnx",
    "load_timeout_s": 1e3,
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "sample": {"x": [[1, None]]},
    "options": {"file": "m.onnx"},
    "aliases": ["a"],
}
EVENTS = b"".join(
    b"data: %b\n\n" % json.dumps({"model": "known", "n": number}).encode() for number in range(3)
)
KEYS = {
    "gateway": {
        "keys": [
            {"client": "a", "key": "k"},
            {"client": "b\u00e9", "key": "bearer k", "admin": True},
        ]
    },
    "models": [{"name": "m\u00e9", "uri": "s3://b/m"}],
}
LOAD = {"parameters": {"config": json.dumps({"max_batch_size": 2}), "file:1/m.onnx": "QUJD"}}


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _grpc() -> bytes:
    request = inference_pb2.ModelInferRequest(model_name="m", id="1")
    request.parameters["p"].int64_param = 1
    typed = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    typed.contents.fp32_contents.extend([1, 2, 3, 4])
    request.outputs.add(name="y").parameters["classification"].int64_param = 1
    return request.SerializeToString()


def _grpc_raw(size_bytes: int = 16) -> bytes:
    request = inference_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[size_bytes // 16, 4])
    request.inputs.add(name="t", datatype="BYTES", shape=[1])
    request.raw_input_contents.extend([bytes(size_bytes), b"\x01\0\0\0a"])
    return request.SerializeToString()


def _grpc_one() -> bytes:
    request = inference_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(bytes(16))
    return request.SerializeToString()


def _frame() -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arrays = {"x": np.ones((1, 2), "f4"), "t": np.array([b"a", b"bc"], object)}
        tensor_frames.send(ours, {"outcome": "done"}, arrays)
        return theirs.recv(1 << 16)


def _torch_pickle() -> bytes:
    torch = importlib.import_module("torch")
    packed = io.BytesIO()
    torch.save(((torch.ones(1),), {}), packed)
    return packed.getvalue()


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("m/model.onnx", "m/data/a.bin"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    return packed.getvalue()


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/model.onnx", b"abc")
    return packed.getvalue()


def _npz() -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, x=np.ones((2, 2), np.float32), t=np.array([b"a", b"b"]))
    return packed.getvalue()


def _onnx() -> bytes:
    helper, float_ = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", float_, ["n", 4])],
        [helper.make_tensor_value_info("y", float_, ["n", 2])],
        [weights],
    )
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


def _boosters() -> dict[str, list[bytes]]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 3))
    labels = (rows[:, 0] > 0).astype(int)
    trained = xgboost.train({"max_depth": 2, "nthread": 1}, xgboost.DMatrix(rows, labels), 2)
    texts = [bytes(trained.save_raw(kind)) for kind in ("json", "ubj")]
    parameters = {"num_leaves": 3, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.txt"
        booster.save_model(path)
        return {"xgboost_file": texts, "lightgbm_file": [path.read_bytes()]}


def by_target() -> dict[str, list[bytes]]:
    """Return good inputs by the target's name."""
    binary = _json(BINARY)
    boosters = _boosters()
    configuration = triton_config.read(PBTXT).config
    return {
        "rest_infer": [b"\n" + _json(V2), b"%d\n" % len(binary) + binary + bytes(16)],
        "rest_raw": [bytes(16), b"text"],
        "v1_predict": [
            _json({"instances": [[1, 2, 3, 4]]}),
            _json({"instances": [{"t": "a", "n": [1, 2]}], "outputs": ["y"]}),
            _json({"inputs": {"t": ["a"], "n": [[1, 2]]}}),
            _json({"instances": [{"a": 1, "b": 2, "c": None}]}),
            _json({"instances": [{"b64": "YQ=="}]}),
        ],
        "grpc_infer": [_grpc(), _grpc_raw(), _grpc_raw(1 << 14)],
        "inflate": [b"gzip\n" + gzip.compress(b"abc" * 9), b"deflate\nx\x9cK\x04\0\0b\0b"],
        "triton_pbtxt": [PBTXT.encode()],
        "triton_json": [_json(configuration)],
        "model_settings": [_json(SETTINGS)],
        "config_yaml": [YAML.encode()],
        "model_entry": [_json(ENTRY), _json({"name": "pytorch", "bucket": "b"})],
        "load_request": [_json(LOAD)],
        "sample_npz": [_npz()],
        "archive": [_tar(), _zip()],
        "onnx_file": [_onnx()],
        "skops_archive": archive_targets.seeds(archive_targets.good_skops()),
        "exported_samples": [b"", pickle.dumps([1.0]), _torch_pickle()],
        "grpc_repeated": [_grpc(), _grpc_raw(), _grpc_one()],
        "engine_events": [EVENTS],
        "generate_body": [_json({"text_input": "a", "id": "1", "parameters": {"stream": True}})],
        "process_frame": [_frame()],
        "gateway_keys": [_json(KEYS)],
        "file_kind": [_zip(), *boosters["xgboost_file"], *boosters["lightgbm_file"]],
        **boosters,
    }

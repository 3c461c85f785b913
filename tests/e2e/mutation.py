"""Random bytes and mutated valid messages for every gRPC method and REST path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf.message import Message

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import model_repository_pb2, modelmesh_pb2
from meshserve.protocol.pb import modelmesh_pb2 as mm
from tests.e2e import zoo

INFERENCE = "/inference.GRPCInferenceService/"
REPOSITORY = "/inference.model_repository.ModelRepositoryService/"
MODEL_MESH = "/mmesh.ModelMesh/"
SIZE_MAX = 300
TENSOR = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2, 4])
TYPED = pb.ModelInferRequest.InferInputTensor(
    name="x",
    datatype="FP32",
    shape=[1, 4],
    contents=pb.InferTensorContents(fp32_contents=[1, 2, 3, 4]),
)
TEXTS = [
    pb.ModelInferRequest.InferInputTensor(name="seconds", datatype="FP64", shape=[1]),
    pb.ModelInferRequest.InferInputTensor(name="name", datatype="BYTES", shape=[1]),
]
INFERS = [
    pb.ModelInferRequest(
        model_name="linear", id="7", inputs=[TENSOR], raw_input_contents=[zoo.ROWS[:2].tobytes()]
    ),
    pb.ModelInferRequest(
        model_name="doubled", model_version="1", inputs=[TYPED], outputs=[{"name": "y"}]
    ),
    pb.ModelInferRequest(
        model_name="pair", inputs=TEXTS, raw_input_contents=[bytes(8), b"\3\0\0\0abc"]
    ),
]
VALID: dict[str, Sequence[Message]] = {
    f"{INFERENCE}ModelInfer": INFERS,
    f"{INFERENCE}ModelReady": [pb.ModelReadyRequest(name="linear", version="1")],
    f"{INFERENCE}ModelMetadata": [pb.ModelMetadataRequest(name="linear")],
    f"{INFERENCE}ModelConfig": [pb.ModelConfigRequest(name="doubled")],
    f"{INFERENCE}ModelStatistics": [
        pb.ModelStatisticsRequest(),
        pb.ModelStatisticsRequest(name="linear"),
    ],
    f"{INFERENCE}RepositoryIndex": [pb.RepositoryIndexRequest(ready=True)],
    f"{INFERENCE}RepositoryModelLoad": [
        pb.RepositoryModelLoadRequest(
            model_name="fuzzed",
            parameters={
                "config": pb.ModelRepositoryParameter(string_param='{"backend": "onnxruntime"}')
            },
        )
    ],
    f"{INFERENCE}RepositoryModelUnload": [pb.RepositoryModelUnloadRequest(model_name="fuzzed")],
    f"{INFERENCE}SystemSharedMemoryRegister": [
        pb.SystemSharedMemoryRegisterRequest(name="a", key="/b", byte_size=9)
    ],
    f"{INFERENCE}TraceSetting": [
        pb.TraceSettingRequest(
            settings={"trace_level": pb.TraceSettingRequest.SettingValue(value=["OFF"])}
        )
    ],
    f"{INFERENCE}LogSettings": [
        pb.LogSettingsRequest(
            settings={"log_info": pb.LogSettingsRequest.SettingValue(bool_param=True)}
        )
    ],
    f"{MODEL_MESH}registerModel": [
        mm.RegisterModelRequest(
            modelId="fuzzed", modelInfo=mm.ModelInfo(type="onnx", path="/nowhere")
        )
    ],
    f"{MODEL_MESH}ensureLoaded": [mm.EnsureLoadedRequest(modelId="fuzzed")],
    f"{MODEL_MESH}setVModel": [
        mm.SetVModelRequest(vModelId="fuzzed-alias", targetModelId="fuzzed")
    ],
}
"""No request in it changes a model that other tests need."""

LINEAR = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],
    "outputs": [{"name": "y"}],
}
REST = {
    "POST /v2/models/linear/infer": LINEAR,
    "POST /v2/models/doubled/versions/1/infer": {
        **LINEAR,
        "id": "a",
        "parameters": {"binary_data_output": True},
    },
    "POST /v1/models/doubled:predict": {"instances": [[1, 2, 3, 4]]},
    "POST /v2/repository/index": {"ready": True},
    "POST /v2/repository/models/fuzzed/load": {"parameters": {"config": "{}"}},
    "POST /v2/repository/models/fuzzed/unload": {},
    "PUT /mesh/v1/models/fuzzed": {"uri": "/nowhere", "runtime": "onnx", "options": {"a": 1}},
    "PUT /mesh/v1/aliases/fuzzed-alias": {"model": "fuzzed"},
    "POST /mesh/v1/apply": {
        "pools": {"x": {"workers": -1, "memory": "lots"}},
        "no-such-section": [1],
    },
}
SERVICES = [
    service
    for module in (pb, model_repository_pb2, modelmesh_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]
UNARY = [
    f"/{service.full_name}/{name}"
    for service in SERVICES
    for name in service.methods_by_name
    if name != "ModelStreamInfer"
]
UNARY.append("/grpc.health.v1.Health/Check")


def random_bytes(chance: np.random.Generator) -> bytes:
    """Return random bytes: short, long, or similar to protobuf."""
    body = chance.bytes(int(chance.integers(0, SIZE_MAX)))
    return (
        bytes([int(chance.integers(1, 8)) * 8 + 2, min(len(body), 127)]) + body
        if chance.random() < 0.5
        else body
    )


def mutated(chance: np.random.Generator, body: bytes) -> bytes:
    """Return the message with a few bytes changed, removed, repeated or cut off."""
    changed = bytearray(body)
    for _ in range(int(chance.integers(1, 4))):
        at = int(chance.integers(0, max(1, len(changed))))
        match int(chance.integers(0, 5)):
            case 0 if changed:
                changed[at] = int(chance.integers(0, 256))
            case 1:
                del changed[at : at + int(chance.integers(1, 5))]
            case 2:
                changed[at:at] = chance.bytes(int(chance.integers(1, 5)))
            case 3:
                del changed[at:]
            case _:
                changed[at:at] = changed[at : at + int(chance.integers(1, 20))]
    return bytes(changed)


def grpc_calls(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Return `count` pairs of method and random bytes, and of method and mutated message."""
    chance = np.random.default_rng(seed)
    valid = [
        (path, message.SerializeToString())
        for path, messages in VALID.items()
        for message in messages
    ]
    for number in range(count):
        yield UNARY[number % len(UNARY)], random_bytes(chance)
        path, body = valid[number % len(valid)]
        yield path, mutated(chance, body)


def rest_calls(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Return the same for REST, as pairs of method with path, and body."""
    chance = np.random.default_rng(seed)
    valid = [(path, json.dumps(document).encode()) for path, document in REST.items()]
    for number in range(count):
        path, body = valid[number % len(valid)]
        yield path, random_bytes(chance)
        yield path, mutated(chance, body)

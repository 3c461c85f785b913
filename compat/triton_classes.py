"""Triton's classification extension, and the flow of its image clients."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from compat import cases, triton_folders, triton_infer, world

PEER = triton_infer.PEER
INT_TYPES = [
    "_".join(types)
    for types in triton_folders.ADD_SUB_TYPES
    if types[0] in {"INT32", "INT64", "FP32", "FP64"} and types[1] != "STRING"
]
NHWC = 1
NCHW = 2


@cases.swept(PEER, "classification", "qa/L0_infer", world.PROTOCOLS, INT_TYPES, (1, 3))
def best_classes(asked: world.World, protocol: str, types: str, count: int) -> None:
    """The best classes of an output: `value:index`, with a label where there is a file of them."""
    word = types.split("_", maxsplit=1)[0]
    given = triton_infer.numbers(word, (2, 16))
    inputs = {"INPUT0": given % 7, "INPUT1": given % 5}
    right = asked.native(f"onnx_{types}", inputs)
    outputs = world.wanted(protocol, "OUTPUT0", "OUTPUT1", class_count=count)
    answer = asked.infer(protocol, f"onnx_{types}", inputs, outputs=outputs)
    for name, label in (("OUTPUT0", "label"), ("OUTPUT1", "")):
        classes = answer.as_numpy(name)
        assert classes.shape == (2, count), classes.shape
        for row, values in zip(classes, right[name], strict=True):
            _check_classes(row, values, label)


def _check_classes(row: np.ndarray, values: np.ndarray, label: str) -> None:
    """Raise AssertionError unless the texts name the greatest values in their order."""
    seen = []
    for text in row:
        value, index, *rest = text.decode().split(":")
        seen.append(int(index))
        assert float(value) == float(values[int(index)]), (text, values)
        assert rest == ([f"{label}{index}"] if label else []), text
    greatest = sorted((float(value) for value in values), reverse=True)[: len(row)]
    assert [float(values[index]) for index in seen] == greatest
    assert len(set(seen)) == len(seen)


@cases.both(PEER, "classification", "qa/L0_infer, models without a batch dimension")
def best_classes_without_batches(asked: world.World, protocol: str) -> None:
    """Without a batch the classes are one dimension."""
    inputs = {
        "INPUT0": triton_infer.numbers("FP32", (16,)),
        "INPUT1": np.zeros(16, np.float32),
    }
    outputs = world.wanted(protocol, "OUTPUT0", class_count=2)
    answer = asked.infer(protocol, "nobatch_FP32_FP32_FP32", inputs, outputs=outputs)
    world.equal(
        answer.as_numpy("OUTPUT0"), np.array([b"16.000000:15:label15", b"15.000000:14:label14"])
    )


@cases.both(PEER, "classification", "qa/L0_infer of libtorch")
def best_classes_of_torch(asked: world.World, protocol: str) -> None:
    """The same of a TorchScript model with labels."""
    a = triton_infer.numbers("INT32", (1, 16))
    outputs = world.wanted(protocol, "OUTPUT__0", class_count=1)
    inputs = {"INPUT__0": a, "INPUT__1": a * 0}
    answer = asked.infer(protocol, "libtorch_INT32", inputs, outputs=outputs)
    world.equal(answer.as_numpy("OUTPUT__0"), np.array([[b"16:15:l15"]]))


def _described(asked: world.World, protocol: str, model: str) -> tuple[Any, Any]:
    """Return a model's metadata as JSON and its configuration as a message."""
    client = asked.triton(protocol)
    if protocol == "http":
        config = json_format.ParseDict(
            client.get_model_config(model), model_config_pb2.ModelConfig()
        )
        return client.get_model_metadata(model), config
    metadata = json_format.MessageToDict(
        client.get_model_metadata(model), preserving_proto_field_name=True
    )
    return metadata, client.get_model_config(model).config


def _shape(spec: Any) -> list[int]:
    return [int(size) for size in spec["shape"]]


def _photo(metadata: Any, config: Any) -> tuple[np.ndarray, bool]:
    """Return a photo in the form that metadata and configuration ask for.

    The steps are those of Triton's image_client: it wants one input of FP32 or UINT8 with three
    dimensions behind a batch, a format, and one output that is a vector. Its dtype is float32.
    """
    (given,), (answered,) = metadata["inputs"], metadata["outputs"]
    (configured,) = config.input
    is_batched = config.max_batch_size > 0
    assert answered["datatype"] == "FP32"
    sizes = _shape(answered)[is_batched:]
    assert sum(size > 1 for size in sizes) == 1, f"{sizes} is no vector"
    shape = _shape(given)
    assert len(shape) == 3 + is_batched, f"{shape} has not 3 dimensions and a batch"
    assert configured.format in (NHWC, NCHW), "the format is not told"
    assert list(configured.dims) == shape[is_batched:]
    pixels = np.random.default_rng(11).integers(0, 255, (8, 8, 3)).astype(np.float32)
    if configured.format == NCHW:
        pixels = np.transpose(pixels, (2, 0, 1))
    assert list(pixels.shape) == shape[is_batched:]
    return np.ascontiguousarray(pixels), is_batched


@cases.swept(
    PEER,
    "image_client",
    "client/src/python/examples/image_client.py",
    world.PROTOCOLS,
    ("photos_nchw", "photos_nhwc"),
    (1, 3, 8),
)
def photos_of_a_batched_folder(asked: world.World, protocol: str, model: str, rows: int) -> None:
    """Metadata and configuration make the request, and the classes have labels."""
    metadata, config = _described(asked, protocol, model)
    assert config.max_batch_size >= rows
    photo, is_batched = _photo(metadata, config)
    assert is_batched
    batch = np.stack([photo + row for row in range(rows)])
    outputs = world.wanted(protocol, metadata["outputs"][0]["name"], class_count=2)
    answer = asked.infer(protocol, model, {metadata["inputs"][0]["name"]: batch}, outputs=outputs)
    classes = answer.as_numpy("scores")
    assert classes.shape == (rows, 2)
    _check_photos(classes, asked.native(model, {"data": batch})["scores"])


def _check_photos(classes: np.ndarray, scores: np.ndarray) -> None:
    for row, values in zip(classes, scores.reshape(len(classes), -1), strict=True):
        for text, index in zip(row, np.argsort(-values), strict=False):
            value, number, label = text.decode().split(":")
            assert int(number) == index
            assert label == triton_folders.LABELS[index]
            np.testing.assert_allclose(float(value), values[index], atol=1e-6)


@cases.both(PEER, "image_client", "docs/examples/model_repository/densenet_onnx")
def photo_of_a_reshaped_network(asked: world.World, protocol: str) -> None:
    """The quickstart's model: no batch, but its own shapes have one."""
    metadata, config = _described(asked, protocol, "densenet")
    photo, is_batched = _photo(metadata, config)
    assert not is_batched
    outputs = world.wanted(protocol, "scores", class_count=3)
    answer = asked.infer(protocol, "densenet", {"data": photo}, outputs=outputs)
    classes = answer.as_numpy("scores")
    assert classes.shape == (3,)
    _check_photos(classes[None], asked.native("densenet", {"data": photo[None]})["scores"])


@cases.both(PEER, "image_client", "client/src/python/examples/grpc_image_client.py")
def the_configuration_is_the_folders(asked: world.World, protocol: str) -> None:
    """What the folder's config.pbtxt says is what clients read."""
    _, config = _described(asked, protocol, "photos_nchw")
    assert (config.name, config.max_batch_size) == ("photos_nchw", 8)
    assert config.backend == "onnxruntime"
    assert list(config.input[0].dims) == [3, 8, 8]
    assert config.output[0].label_filename == "labels.txt"
    _, joined = _described(asked, protocol, "joined")
    assert list(joined.dynamic_batching.preferred_batch_size) == [4, 8]

"""The bytes of Triton's HTTP protocol: JSON, binary tensors, raw bodies, compression."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import tritonclient.http

from compat import cases, triton_examples, triton_infer, world

PEER = triton_infer.PEER
LENGTH = "Inference-Header-Content-Length"
PAIR = {"INPUT0": triton_examples.A, "INPUT1": triton_examples.B}
TOTAL = (triton_examples.A + triton_examples.B)[0].tolist()


def _tensors(**more: Any) -> list[Any]:
    return [
        world.tensor(name, "INT32", array.shape, array.tolist(), **more)
        for name, array in PAIR.items()
    ]


def _raw(asked: world.World, model: str, body: bytes) -> Any:
    """POST a body that is one tensor's bytes, without JSON before it."""
    headers = {LENGTH: "0", "Content-Type": "application/octet-stream"}
    return asked.rest.post(f"/v2/models/{model}/infer", content=body, headers=headers)


def _binary(answer: Any, dtype: Any) -> np.ndarray:
    """Return the only output of a binary answer, of this dtype and the shape that it tells."""
    assert answer.status_code == 200, answer.text
    size = int(answer.headers[LENGTH])
    output = json.loads(answer.content[:size])["outputs"][0]
    return np.frombuffer(answer.content[size:], dtype).reshape(output["shape"])


@cases.case(PEER, "raw binary requests", "qa/L0_http/http_test")
def a_raw_body_of_numbers(asked: world.World) -> None:
    """One input with one free dimension: its size follows from the bytes."""
    given = np.arange(8, dtype=np.float32)
    answer = _binary(_raw(asked, "identity_fp32", given.tobytes()), np.float32)
    world.equal(answer, given)


@cases.case(PEER, "raw binary requests", "qa/L0_http/http_test")
def a_raw_body_of_one_row(asked: world.World) -> None:
    """With a batch dimension the body is one row."""
    given = np.arange(4, dtype=np.float32)
    world.equal(_binary(_raw(asked, "joined", given.tobytes()), np.float32), given[None] * 3)


@cases.case(PEER, "raw binary requests", "qa/L0_http/http_test")
def a_raw_body_of_bytes(asked: world.World) -> None:
    """Of BYTES the whole body is the one element."""
    answer = _raw(asked, "one_text", b"\xff a body \x00")
    assert answer.status_code == 200, answer.text
    size = int(answer.headers[LENGTH])
    assert answer.content[size:] == b"\x0a\x00\x00\x00\xff a body \x00"


@cases.case(PEER, "raw binary requests", "qa/L0_http/http_test")
def wrong_raw_bodies(asked: world.World) -> None:
    """Bodies of models with several inputs, free dimensions, or the wrong length are refused."""
    for model, body in (
        ("simple", b"\x00" * 64),
        ("variable_nobatch", b"\x00" * 64),
        ("joined", b"\x00" * 15),
        ("joined", b""),
        ("simple_identity", b"\x01\x00\x00\x00a"),
    ):
        answer = _raw(asked, model, body)
        assert answer.status_code == 400, f"{model}: {answer.status_code}"
        assert answer.json()["error"]


@cases.swept(PEER, "JSON", "docs/protocol/extension_binary_data.md", (True, False), (True, False))
def binary_and_json(asked: world.World, is_binary_in: bool, is_binary_out: bool) -> None:
    """Binary and JSON tensors mix, both ways."""
    inputs = []
    for name, array in PAIR.items():
        inputs.append(tritonclient.http.InferInput(name, array.shape, "INT32"))
        inputs[-1].set_data_from_numpy(array, binary_data=is_binary_in)
    wanted = [
        *world.wanted("http", "OUTPUT0", binary_data=is_binary_out),
        *world.wanted("http", "OUTPUT1", binary_data=True),
    ]
    answer = asked.http.infer("simple", inputs, outputs=wanted)
    world.equal(answer.as_numpy("OUTPUT0"), triton_examples.A + triton_examples.B)
    world.equal(answer.as_numpy("OUTPUT1"), triton_examples.A - triton_examples.B)


@cases.case(PEER, "JSON", "docs/protocol/extension_binary_data.md: binary_data_output")
def all_outputs_binary(asked: world.World) -> None:
    """A parameter of the request makes all outputs binary."""
    answer = asked.rest.post(
        "/v2/models/simple/infer",
        json={"inputs": _tensors(), "parameters": {"binary_data_output": True}},
    )
    size = int(answer.headers[LENGTH])
    outputs = json.loads(answer.content[:size])["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [64, 64]
    world.equal(np.frombuffer(answer.content[size : size + 64], np.int32), np.array(TOTAL, "i4"))


@cases.swept(PEER, "JSON", "docs/protocol: data flat or nested", ("flat", "nested", "other"))
def any_nesting(asked: world.World, form: str) -> None:
    """`data` may be nested in any way."""
    inputs = _tensors()
    for tensor in inputs:
        (row,) = tensor["data"]
        tensor["data"] = {"flat": row, "nested": [row], "other": [row[:4], row[4:]]}[form]
    outputs = asked.infer_json("simple", *inputs)
    assert outputs[0] == world.tensor("OUTPUT0", "INT32", [1, 16], TOTAL)


@cases.case(PEER, "JSON", "kserve/open-inference-protocol: null is not given")
def nulls(asked: world.World) -> None:
    """Optional fields that are null count as not given."""
    more = {"id": None, "parameters": None, "outputs": None}
    outputs = asked.infer_json("simple", *_tensors(parameters=None), **more)
    assert outputs[0]["data"] == TOTAL


@cases.swept(PEER, "JSON", "qa/L0_json: every datatype", ("BOOL", "INT8", "UINT64", "FP16", "FP64"))
def datatypes_in_json(asked: world.World, datatype: str) -> None:
    """Numbers of every datatype come back equal."""
    data = [True, False] if datatype == "BOOL" else [0, 5]
    inputs = [world.tensor(f"INPUT{i}", datatype, [2], data) for i in range(2)]
    outputs = asked.infer_json(f"zero_nobatch_{datatype}", *inputs)
    assert [output["data"] for output in outputs] == [data, data]


@cases.case(PEER, "JSON", "qa/L0_json")
def texts_in_json(asked: world.World) -> None:
    """Texts in JSON, escaped ones too."""
    texts = ["", 'a "b"', "Größe ✓", "line\nline"]
    (output,) = asked.infer_json("simple_identity", world.tensor("INPUT0", "BYTES", [1, 4], texts))
    assert output["data"] == texts


@cases.case(PEER, "JSON", "qa/L0_http: bad requests")
def bad_json(asked: world.World) -> None:
    """What is no request is refused with 400 and a JSON error."""
    for body in (b"", b"{", b"[]", b'{"inputs": 3}', b'{"inputs": [{"name": "INPUT0"}]}', b"\xff"):
        answer = asked.rest.post("/v2/models/simple/infer", content=body)
        assert answer.status_code == 400, f"{body!r}: {answer.status_code}"
        assert answer.json()["error"]


@cases.swept(PEER, "compression", "qa/L0_data_compression", world.PROTOCOLS, ("gzip", "deflate"))
def compressed_requests(asked: world.World, protocol: str, algorithm: str) -> None:
    """Compressed requests are answered; compressed answers may be asked for."""
    more: dict[str, Any] = {"compression_algorithm": algorithm}
    if protocol == "http":
        more = {
            "request_compression_algorithm": algorithm,
            "response_compression_algorithm": algorithm,
        }
    answer = asked.infer(protocol, "simple", PAIR, **more)
    world.equal(answer.as_numpy("OUTPUT0"), triton_examples.A + triton_examples.B)


@cases.case(PEER, "compression", "RFC 1952: several members")
def compressed_in_pieces(asked: world.World) -> None:
    """A gzip body of several members is whole; one that is cut is refused."""
    body = json.dumps({"inputs": _tensors()}).encode()
    for encoding, content, status in (
        ("gzip", gzip.compress(body[:30]) + gzip.compress(body[30:]), 200),
        ("deflate", zlib.compress(body), 200),
        ("gzip", gzip.compress(body)[:-10], 400),
        ("br", body, 400),
    ):
        answer = asked.rest.post(
            "/v2/models/simple/infer", content=content, headers={"Content-Encoding": encoding}
        )
        good = answer.status_code == status or (status == 400 and answer.status_code == 415)
        assert good, f"{encoding}: {answer.status_code} {answer.text}"

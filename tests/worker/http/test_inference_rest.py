from __future__ import annotations

import gzip
import zlib

import pytest

from meshserve import errors
from meshserve.worker.http import inference_rest
from tests.worker import helpers

ROW = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.fixture
def slashed(pool_worker, storage):
    """The same model under a name that must be quoted."""
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("a/b größe", storage.put("doubled"))))
    return "a%2Fb%20gr%C3%B6%C3%9Fe"


async def test_v2_answers(http):
    answer = await http.post("/v2/models/doubled/infer", json={"id": "7", "inputs": [ROW]})
    assert answer.json()["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}
    ]
    assert (answer.json()["model_version"], answer.json()["id"]) == ("1", "7")
    same = await http.post("/v2/models/doubled/versions/1/infer", json={"inputs": [ROW]})
    assert same.json()["outputs"] == answer.json()["outputs"]


async def test_v2_describes_the_model(http):
    assert (await http.get("/v2/models/doubled")).json()["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    ]
    assert (await http.get("/v2/models/doubled/config")).json()["max_batch_size"] == 256
    assert (await http.get("/v2/models/doubled/ready")).json() == {"name": "doubled", "ready": True}
    [stats] = (await http.get("/v2/models/doubled/versions/1/stats")).json()["model_stats"]
    assert stats["version"] == "1"


async def test_v1_answers(http):
    for path in ("/v1/models/doubled", "/v1/models/doubled/versions/1"):
        assert (await http.post(f"{path}:predict", json={"instances": [[1, 2]]})).json() == {
            "predictions": [[2.0, 4.0]]
        }
        assert (await http.get(path)).json() == {"name": "doubled", "ready": True}
    assert (
        await http.post("/v1/models/doubled/versions/2:predict", json={"instances": [[1, 2]]})
    ).status_code == 404


async def test_names_may_be_quoted(http, slashed):
    assert (await http.get(f"/v2/models/{slashed}")).json()["name"] == "a/b größe"
    answer = await http.post(f"/v1/models/{slashed}%3Apredict", json={"instances": [[1, 2]]})
    assert answer.json() == {"predictions": [[2.0, 4.0]]}


async def test_metadata_names_no_model_over_rest(http):
    """The gateway found the worker by the URL."""
    answer = await http.post(
        "/v1/models/doubled:predict",
        json={"instances": [[1, 2]]},
        headers={"mm-model-id": "nobody"},
    )
    assert answer.status_code == 200


async def test_bodies_may_be_compressed(http):
    headers = {"content-encoding": "gzip"}
    body = gzip.compress(b'{"instances": [[1, 2]]}')
    assert (
        await http.post("/v1/models/doubled:predict", content=body, headers=headers)
    ).json() == {"predictions": [[2.0, 4.0]]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/doubled/infer"),
        ("POST", "/v2/models/doubled"),
        ("GET", "/v2/models/doubled/nothing"),
        ("GET", "/v1/models/doubled:predict"),
        ("GET", "/v1/models"),
        ("GET", "/v2/models/nobody"),
        ("GET", "/v2/models/doubled/versions/9/ready"),
    ],
)
async def test_unknown_paths_and_models_are_404(http, method, path):
    answer = await http.request(method, path)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


async def test_a_model_that_can_not_be_loaded_is_not_ready(http, pool_worker, storage):
    helpers.apply(
        pool_worker, *helpers.declared(helpers.spec("empty", str(storage.folder / "empty")))
    )
    assert (await http.get("/v2/models/empty")).status_code == 424
    answer = await http.get("/v2/models/empty/ready")
    assert (answer.status_code, answer.json()["ready"]) == (424, False)


BODY = b'{"inputs": []}' * 50
GZIPPED = gzip.compress(BODY, mtime=0)


def headers(coding):
    return [(b"host", b"a"), (b"content-encoding", coding)]


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", GZIPPED),
        (b"GZIP", GZIPPED),
        (b"deflate", zlib.compress(BODY)),
        (b"identity", BODY),
        (b"", BODY),
    ],
)
def test_bodies_are_unpacked(coding, packed):
    assert inference_rest.inflate(packed, headers(coding)) == BODY


def test_a_body_without_an_encoding_is_unchanged():
    packed = GZIPPED
    assert inference_rest.inflate(packed, [(b"host", b"a")]) is packed


@pytest.mark.parametrize(
    ("coding", "packed", "words"),
    [
        (b"br", BODY, "'br' is unknown; there are: gzip, deflate"),
        (b"gzip", BODY, "the body is not gzip"),
        (b"deflate", b"\xff" + BODY, "the body is not deflate"),
        (b"gzip", GZIPPED[:-9], "cut short"),
        (b"gzip", b"", "cut short"),
        (b"\xff\n", BODY, "is unknown"),
    ],
)
def test_a_broken_compressed_body_is_refused(coding, packed, words):
    with pytest.raises(errors.InvalidRequest, match=words):
        inference_rest.inflate(packed, headers(coding))


def test_a_decompressed_body_has_a_limit(monkeypatch):
    monkeypatch.setattr(inference_rest, "INFLATED_BYTES_MAX", 1 << 20)
    assert (
        len(inference_rest.inflate(zlib.compress(bytes(1 << 20)), headers(b"deflate"))) == 1 << 20
    )
    with pytest.raises(errors.PayloadTooLarge, match="unpacks to more than 1048576 bytes"):
        inference_rest.inflate(zlib.compress(bytes((1 << 20) + 1)), headers(b"deflate"))

from __future__ import annotations

import asyncio
import base64

import pytest

from meshserve import errors
from meshserve.worker.http import inference_request


def request(*headers, path="/v2/models/a%2Fb/infer"):
    return inference_request.InferenceRequest("POST", path.encode(), headers, b"body")


async def test_a_request_is_read_as_it_was_written():
    asked = request()
    assert (asked.path, asked.method, asked.body, asked.named) == (
        "/v2/models/a%2Fb/infer",
        "POST",
        b"body",
        "",
    )
    assert asked.expires_s - asyncio.get_running_loop().time() == pytest.approx(
        inference_request.PATIENCE_S, abs=5
    )


async def test_its_deadline_counts_from_its_arrival():
    left_s = request((b"grpc-timeout", b"30S")).expires_s - asyncio.get_running_loop().time()
    assert 25 < left_s <= 30
    with pytest.raises(errors.InvalidRequest, match="grpc-timeout 'soon'"):
        request((b"grpc-timeout", b"soon"))


async def test_metadata_may_name_a_model():
    name = "größe"
    encoded = base64.b64encode(name.encode()).rstrip(b"=")
    assert request((b"mm-model-id", b"a")).named == "a"
    assert request((b"mm-model-id", b"a"), (b"mm-vmodel-id", b"b")).named == "b"
    assert request((b"mm-vmodel-id-bin", encoded)).named == name
    with pytest.raises(errors.InvalidRequest, match="base64"):
        request((b"mm-model-id-bin", b"!"))

from __future__ import annotations

import logging

import httpx
import pytest

OPS = {"x-mesh-client": "ops"}
MODEL = "/mesh/v1/models/new"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = "meshserve.control.api.call_log"
    return [record.message for record in caplog.records if record.name == own]


async def test_a_change_is_logged_with_its_client(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await http.put(MODEL, json={"uri": "/models/new"}, headers=OPS)
    await http.post(f"{MODEL}/pin?version=7")
    await http.delete(MODEL, headers=OPS)
    assert lines(caplog) == [
        "PUT /mesh/v1/models/new by ops: 200",
        "POST /mesh/v1/models/new/pin by a client without a key: 404",
        "DELETE /mesh/v1/models/new by ops: 200",
    ]


async def test_reads_are_not_logged(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await http.get("/mesh/v1/status", headers=OPS)
    await http.post("/v2/repository/index", headers=OPS)
    assert lines(caplog) == []

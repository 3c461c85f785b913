from __future__ import annotations

import pytest


@pytest.mark.parametrize("kind", ["systemsharedmemory", "cudasharedmemory"])
async def test_there_is_no_shared_memory(http, kind):
    assert (await http.get(f"/v2/{kind}/status")).json() == []
    assert (await http.get(f"/v2/{kind}/region/mine/status")).json() == []
    assert (await http.post(f"/v2/{kind}/unregister")).json() == {}
    refused = await http.post(
        f"/v2/{kind}/region/mine/register", json={"key": "/x", "offset": 0, "byte_size": 1}
    )
    assert (refused.status_code, "not offered" in refused.json()["error"]) == (501, True)


@pytest.mark.parametrize(
    ("path", "key"), [("/v2/trace/setting", "trace_level"), ("/v2/logging", "log_error")]
)
async def test_settings_are_told_and_stay_as_they_are(http, path, key):
    told = await http.get(path)
    assert (told.status_code, key in told.json()) == (200, True)
    assert (await http.post(path, json={key: "x"})).status_code == 501
    assert (await http.post(path, json={})).json() == told.json()


@pytest.mark.parametrize(
    "path", ["/v2/systemsharedmemory/x", "/v2/trace/settings", "/v2/logging/x"]
)
async def test_there_is_nothing_else(http, path):
    assert (await http.get(path)).status_code == 404

from __future__ import annotations

import httpx
import pytest


@pytest.mark.parametrize("kind", ["systemsharedmemory", "cudasharedmemory"])
async def test_shared_memory_is_empty_and_cannot_be_registered(
    http: httpx.AsyncClient, kind: str
) -> None:
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
async def test_settings_are_shown_and_cannot_be_changed(
    http: httpx.AsyncClient, path: str, key: str
) -> None:
    shown = await http.get(path)
    assert (shown.status_code, key in shown.json()) == (200, True)
    assert (await http.post(path, json={key: "x"})).status_code == 501
    assert (await http.post(path, json={})).json() == shown.json()


@pytest.mark.parametrize(
    "path", ["/v2/systemsharedmemory/x", "/v2/trace/settings", "/v2/logging/x"]
)
async def test_other_paths_are_404(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404

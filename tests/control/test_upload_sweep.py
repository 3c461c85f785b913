from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshserve.control import upload_sweep
from meshserve.core.values import model
from tests.control import conftest

LONG_S = 600.0


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour has too many ticks of the controller for a test."""
    monkeypatch.setattr(upload_sweep, "PERIOD_S", 1.0)
    monkeypatch.setattr(upload_sweep, "UNUSED_S", 4.0)


async def upload(http: httpx.AsyncClient, name: str, content: str) -> None:
    parameters: dict[str, Any] = {"config": "{}", "file:1/model.onnx": content}
    path = f"/v2/repository/models/{name}/load"
    (await http.post(path, json={"parameters": parameters})).raise_for_status()


def kept(stage: conftest.Stage, age_s: float = 2 * LONG_S) -> list[Path]:
    """Return the folders of uploads, made older than what a sweep lets stay."""
    folders = sorted(Path(stage.state_dir, "uploads").iterdir())
    for folder in folders if age_s else ():
        os.utime(folder, (folder.stat().st_atime, folder.stat().st_mtime - age_s))
    return folders


async def test_uploads_go_with_the_last_model_that_uses_them(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await upload(http, "sent", "AAAA")
    await upload(http, "twin", "AAAA")
    await upload(http, "other", "BBBB")
    assert len(kept(stage)) == 2
    await http.delete("/mesh/v1/models/sent")
    await stage.clock.advance(upload_sweep.UNUSED_S + 2 * upload_sweep.PERIOD_S)
    assert len(kept(stage)) == 2
    await http.delete("/mesh/v1/models/twin")
    await stage.clock.advance(upload_sweep.UNUSED_S / 2)
    assert len(kept(stage)) == 2
    await stage.clock.advance(upload_sweep.UNUSED_S + 2 * upload_sweep.PERIOD_S)
    await stage.until(lambda: len(kept(stage, 0)) == 1)
    assert str(stage.declared(model.ModelId("other", "1")).spec.uri).startswith(
        str(kept(stage, 0)[0])
    )


async def test_what_a_load_overrides_keeps_its_files(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await upload(http, "sent", "AAAA")
    await http.post(
        "/v2/repository/models/sent/load",
        json={"parameters": {"config": '{"max_batch_size": 7}'}},
    )
    kept(stage)
    await stage.clock.advance(upload_sweep.UNUSED_S + 2 * upload_sweep.PERIOD_S)
    assert len(kept(stage)) == 1


async def test_files_that_were_kept_again_stay(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await upload(http, "sent", "AAAA")
    await http.delete("/mesh/v1/models/sent")
    kept(stage)
    await stage.clock.advance(upload_sweep.UNUSED_S - 2 * upload_sweep.PERIOD_S)
    await upload(http, "again", "AAAA")
    await http.delete("/mesh/v1/models/again")
    await stage.clock.advance(upload_sweep.UNUSED_S - 2 * upload_sweep.PERIOD_S)
    assert len(kept(stage)) == 1


async def test_uploads_of_an_earlier_controller_are_removed_too(fresh: conftest.Stage) -> None:
    folder = Path(fresh.state_dir, "uploads")
    for name in ("a" * 64, f"leaving-{'b' * 64}", "somebody-else-s"):
        (folder / name / "1").mkdir(parents=True)
    await fresh.start(conftest.CONFIG)
    kept(fresh)
    await fresh.clock.advance(upload_sweep.UNUSED_S + 2 * upload_sweep.PERIOD_S)
    await fresh.until(lambda: [path.name for path in kept(fresh, 0)] == ["somebody-else-s"])

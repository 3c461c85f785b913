from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import solo, tiny
from meshserve import errors
from meshserve.core.values import model


async def test_a_worker_serves_what_it_was_told_of_and_nothing_else(tmp_path: Path) -> None:
    tiny.write(tmp_path / "tiny.onnx", 1)
    async with solo.serving(tmp_path, [solo.Entry("tiny", tmp_path / "tiny.onnx")]) as pool_worker:
        await pool_worker.ensure_loaded(model.ModelId("tiny"), 20)
        with pytest.raises(errors.ModelNotFound):
            await pool_worker.ensure_loaded(model.ModelId("other"), 20)
        assert pool_worker.report().state == "ready"
    assert not any(name.endswith(".sock") for name in os.listdir(tmp_path))  # noqa: PTH208

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import torch_models

SIZE_BYTES = 1 << 20


@pytest.mark.parametrize(
    "kind", [torch_models.WIDE, torch_models.SCRIPTED], ids=lambda kind: kind.ending
)
def test_a_saved_model_has_about_its_size_and_takes_its_rows(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / f"model{kind.ending}"
    rows = torch_models.write(path, kind, SIZE_BYTES)
    assert SIZE_BYTES * 0.9 < path.stat().st_size < SIZE_BYTES * 1.2
    assert torch_models.answer(torch_models.load(path), rows).shape == rows.shape


def test_a_deep_one_has_about_its_size() -> None:
    size_bytes = 60 << 20
    module = torch_models.Deep(size_bytes)
    assert sum(weight.numel() * 4 for weight in module.parameters()) == pytest.approx(
        size_bytes, rel=0.3
    )
    assert module.rows().shape == (2, torch_models.LENGTH)


def test_weights_are_found_in_their_file(tmp_path: Path) -> None:
    torch_models.write(tmp_path / "m.pt2", torch_models.WIDE, SIZE_BYTES)
    assert torch_models.first_weights(tmp_path / "m.pt2") in (tmp_path / "m.pt2").read_bytes()
    assert len(np.frombuffer(torch_models.first_weights(tmp_path / "m.pt2"), np.float32)) == 64

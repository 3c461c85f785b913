from __future__ import annotations

import shutil
from pathlib import Path

from tools import wheel


def test_the_source_tree_lacks_nothing() -> None:
    assert wheel.missing_data(wheel.ROOT / "meshserve") == []


def test_a_package_without_its_data_is_noticed(tmp_path: Path) -> None:
    shutil.copy(wheel.ROOT / "meshserve" / "py.typed", tmp_path)
    assert "**/*.lua" in wheel.missing_data(tmp_path)
    assert "py.typed" not in wheel.missing_data(tmp_path)

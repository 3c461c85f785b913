from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import pages


def test_dropped_pages_are_gone_and_read_ones_are_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    pages.drop(tmp_path)
    if pages.cached_share(path) == 1.0:
        pytest.skip("this file system lives in the page cache")
    assert pages.cached_share(path) == 0.0
    path.read_bytes()
    assert pages.cached_share(path) == 1.0


def test_a_file_and_a_folder_are_both_walked(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "file"
    path.touch()
    (tmp_path / "link").symlink_to(path)
    assert pages.files(tmp_path) == pages.files(path) == [path]
    assert pages.cached_share(path) == 0.0

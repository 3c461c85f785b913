from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshserve.launch import secret_file


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_secret_is_random_private_and_stays(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        secret = secret_file.get_secret(tmp_path)
    finally:
        os.umask(before)
    assert len(secret) >= 43
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.secret"]
    assert (tmp_path / "mesh.secret").stat().st_mode & 0o777 == 0o600
    assert secret_file.get_secret(tmp_path) == secret
    (tmp_path / "other").mkdir()
    assert secret_file.get_secret(tmp_path / "other") != secret


def test_a_secret_that_others_could_read_or_that_is_cut_off_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mesh.secret"
    first = secret_file.get_secret(tmp_path)
    path.chmod(0o644)
    second = secret_file.get_secret(tmp_path)
    path.write_text(second[:10])
    third = secret_file.get_secret(tmp_path)
    assert len({first, second, third}) == 3
    assert path.stat().st_mode & 0o777 == 0o600

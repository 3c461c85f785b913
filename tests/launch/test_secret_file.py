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


def test_each_start_has_an_owners_key_of_its_own(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys = [secret_file.create_owner_key(tmp_path) for _ in range(2)]
    finally:
        os.umask(before)
    assert len(set(keys)) == 2
    assert secret_file.read_owner_key(tmp_path) == keys[1]
    assert [path.name for path in tmp_path.iterdir()] == ["owner.key"]
    assert (tmp_path / "owner.key").stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        secret_file.remove_owner_key(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_link_in_place_of_the_unfinished_key_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "owner.new").symlink_to(tmp_path / "elsewhere")
    key = secret_file.create_owner_key(tmp_path)
    assert secret_file.read_owner_key(tmp_path) == key
    assert not (tmp_path / "elsewhere").exists()


def test_what_can_not_be_read_is_no_key(tmp_path: Path) -> None:
    assert secret_file.read_owner_key(tmp_path) == ""
    (tmp_path / "owner.key").write_bytes(b"\xff")
    assert secret_file.read_owner_key(tmp_path) == ""

from __future__ import annotations

from pathlib import Path

import pytest

from meshserve import errors
from meshserve.cluster import actor_process


@actor_process.errors_as_values
async def double(value: int | Exception) -> int:
    if isinstance(value, Exception):
        raise value
    return 2 * value


async def test_a_mesh_error_becomes_the_result() -> None:
    error = errors.LoadFailed("it is corrupt", retry_after_s=2.5)
    assert await double(error) is error


async def test_other_errors_are_raised() -> None:
    with pytest.raises(KeyError):
        await double(KeyError("x"))


async def test_a_result_is_returned_unchanged() -> None:
    assert await double(21) == 42


def test_a_run_dir_is_private_and_may_exist_already(tmp_path: Path) -> None:
    for _ in range(2):
        actor_process.make_run_dir(f"{tmp_path}/some/new")
    assert oct((tmp_path / "some" / "new").stat().st_mode)[-3:] == "700"


def test_a_run_dir_that_others_could_have_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o750)
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    for name in ("open", "link"):
        with pytest.raises(errors.Unavailable, match="of this user alone"):
            actor_process.make_run_dir(str(tmp_path / name))

from __future__ import annotations

import contextlib
import importlib.util
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from meshserve import config, errors
from meshserve.launch import start_checks
from tests import support


@pytest.mark.parametrize(
    ("runtime", "is_installed", "is_refused"),
    [("vllm", False, True), ("vllm", True, False), ("other", False, False)],
)
def test_a_mesh_on_this_machine_needs_vllm_for_its_llms(
    monkeypatch: pytest.MonkeyPatch, runtime: str, is_installed: bool, is_refused: bool
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if is_installed else None)
    listen = f"127.0.0.1:{support.free_port()}"
    llms = [{"name": "a", "uri": "/a", "runtime": runtime}]
    settings = config.parse({"gateway": {"listen": listen}, "llms": llms})
    refused = pytest.raises(errors.MissingExtra, match=r"meshserve\[llm\].*meshserve\[llm-cpu\]")
    with refused if is_refused else contextlib.nullcontext():
        start_checks.check(settings)


@pytest.mark.parametrize(
    ("listen", "reason"),
    [("192.0.2.1:80", "Cannot assign requested address"), ("127.0.0.1:PORT", "already in use")],
)
def test_an_address_that_cannot_be_listened_on_is_named(listen: str, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = listen.replace("PORT", str(taken.getsockname()[1]))
        refused = pytest.raises(
            errors.Unavailable, match=f"gateway.listen: can't listen on {listen}: .*{reason}"
        )
        with refused:
            start_checks.check(config.parse({"gateway": {"listen": listen}}))


def test_the_run_folder_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    run_dir = start_checks.make_run_dir(has_ray=True)
    assert run_dir.stat().st_mode & 0o777 == 0o700
    run_dir.rmdir()


@pytest.mark.parametrize(("has_ray", "bytes_max"), [(True, 20), (False, 88)])
def test_a_folder_for_temporary_files_with_too_long_a_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, has_ray: bool, bytes_max: int
) -> None:
    base = tempfile.mkdtemp(prefix="t", dir="/tmp")
    folder = Path(base) / ("x" * (bytes_max - len(base) - 1))
    for path, is_long in ((folder, False), (folder.with_name(folder.name + "x"), True)):
        path.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(path))
        refused: Any = pytest.raises(errors.Unavailable, match=r"1 bytes too long.*set TMPDIR")
        with refused if is_long else contextlib.nullcontext():
            start_checks.make_run_dir(has_ray=has_ray).rmdir()
        path.rmdir()
    Path(base).rmdir()


def test_no_folder_for_temporary_files_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(errors.Unavailable, match=r"No such file or directory.*set TMPDIR"):
        start_checks.make_run_dir(has_ray=True)

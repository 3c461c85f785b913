"""The build of Envoy's module in C, its sanitizers, and its reader of names beside the script's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from meshserve.gateway.envoy import envoy_process
from meshserve.gateway.native import native_module
from tests import support

SOURCES = Path(native_module.__file__).parent
FUZZER = Path(__file__).with_name("fuzz_native.c")
CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus" / "grpc_infer"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
COMPILER = next(filter(None, map(shutil.which, native_module.COMPILERS)), None)
ROUNDS = int(os.environ.get("NATIVE_ROUNDS", "150000"))

pytestmark = [
    pytest.mark.edge,
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler"),
]


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_module_is_built_once(module_dir: str) -> None:
    envoy = envoy_process.program()
    (built,) = Path(module_dir).iterdir()
    before = built.stat()
    assert native_module.find_or_build(module_dir, envoy).path == str(built)
    assert built.stat() == before


def test_without_a_compiler_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    built = native_module.find_or_build(str(tmp_path / "built"), envoy_process.program())
    assert built == native_module.NativeModule(reason=native_module.NO_COMPILER)
    assert not (tmp_path / "built").exists()


def test_a_module_that_envoy_refuses_is_not_kept(tmp_path: Path) -> None:
    envoy = tmp_path / "envoy"
    program(envoy, '[ "$1" = --version ] && echo a/1.40.9/b && exit; echo "ABI mismatch"; exit 1')
    built = native_module.find_or_build(str(tmp_path / "built"), str(envoy))
    assert built.reason == "envoy failed: ABI mismatch"
    assert list((tmp_path / "built").iterdir()) == []


def test_another_envoy_goes_without_it(tmp_path: Path) -> None:
    program(tmp_path / "envoy", "echo version: abc/1.41.0/Clean/RELEASE/BoringSSL")
    built = native_module.find_or_build(str(tmp_path / "built"), str(tmp_path / "envoy"))
    assert built == native_module.NativeModule(reason="it is for Envoy 1.40 alone")


def test_a_compiler_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "cc", "echo no headers here >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    built = native_module.find_or_build(str(tmp_path / "built"), envoy_process.program())
    assert built == native_module.NativeModule(reason="cc failed: no headers here")


def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    assert COMPILER is not None
    units = sorted(map(str, SOURCES.glob("*.c")))
    command = [COMPILER, *native_module.FLAGS, *STRICT, "-o", str(tmp_path / "m.so"), *units]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.timeout(10 * support.WAIT_S)
def test_right_and_wrong_bytes_under_sanitizers(tmp_path: Path) -> None:
    assert COMPILER is not None
    fuzzer = tmp_path / "fuzz"
    units = sorted(map(str, SOURCES.glob("*.c")))
    flags = ("-O1", "-g", "-std=c11", *SANITIZERS, f"-I{SOURCES}")
    subprocess.run([COMPILER, *flags, "-o", fuzzer, *units, FUZZER], check=True)
    files = sorted(CORPUS.iterdir())[:64]
    run = subprocess.run(
        [fuzzer, "1", str(ROUNDS), *files], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{ROUNDS} rounds\n", "")

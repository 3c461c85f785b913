"""Compile Envoy's module in C where a gateway starts, once for each Envoy and each source.

A machine without a compiler, or whose Envoy takes no such module, goes without it.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    *("-O2", "-std=c11", "-shared", "-fPIC"),
    # A mistake must end Envoy, which is back after 0.3 s, and not do something else.
    *("-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-Wl,-z,relro,-z,now"),
)
BUILD_S = 60.0
ENVOY = "/1.40."
"""A part of the version that the module is made for.

Another one of the same ABI may free an upstream request at another moment, and write to it then:
source/extensions/upstreams/http/dynamic_modules/upstream_request.cc must be read first.
"""

NO_COMPILER = "no C compiler is here"
CHECK = "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"
MANAGER = (
    "type.googleapis.com/"
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


class NativeModule(NamedTuple):
    """The file of the built module, "" without one, and then why there is none."""

    path: str = ""
    reason: str = ""


class _NotBuilt(Exception):
    """A program that the build needs failed; the message says how."""


def find_or_build(folder: str, envoy: str) -> NativeModule:
    """Return the module for the Envoy with this path; build it in the folder if it is not there."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    try:
        sources = _sources()
        version = _run(envoy, "--version")
        if ENVOY not in version:
            return NativeModule(reason=f"it is for Envoy {ENVOY.strip('/.')} alone")
        digest = hashlib.sha256("\0".join([version, *FLAGS, *sources.values()]).encode())
        module = Path(folder) / f"meshframes-{digest.hexdigest()[:16]}.so"
        if not module.exists():
            if compiler is None:
                return NativeModule(reason=NO_COMPILER)
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as place:
                built = _build(sources, compiler, Path(place))
                _check(built, envoy)
                built.replace(module)
    except (_NotBuilt, OSError) as failure:
        return NativeModule(reason=str(failure))
    return NativeModule(str(module))


def _sources() -> dict[str, str]:
    files = importlib.resources.files(__package__).iterdir()
    texts = {file.name: file.read_text() for file in files if file.name.endswith((".c", ".h"))}
    return dict(sorted(texts.items()))


def _build(sources: dict[str, str], compiler: str, place: Path) -> Path:
    """Return the compiled module. Raises _NotBuilt, OSError."""
    for name, text in sources.items():
        (place / name).write_text(text)
    units = [str(place / name) for name in sources if name.endswith(".c")]
    module = place / "module.so"
    _run(compiler, *FLAGS, "-o", str(module), *units)
    return module


def _check(module: Path, envoy: str) -> None:
    """Have Envoy load the module. Raises _NotBuilt if it refuses it."""
    calls = {
        "@type": CHECK,
        "dynamic_module_config": {"module": {"local": {"filename": str(module)}}},
        "filter_name": "check",
    }
    filters = [
        {"name": "calls", "typed_config": calls},
        {"name": "router", "typed_config": {"@type": ROUTER}},
    ]
    manager = {
        "@type": MANAGER,
        "stat_prefix": "check",
        "route_config": {},
        "http_filters": filters,
    }
    listener = {
        "name": "check",
        "address": {"pipe": {"path": str(module.with_name("check.sock"))}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    config = module.with_name("check.json")
    config.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    words = ("--mode", "validate", "--use-dynamic-base-id", "--log-level", "error")
    _run(envoy, *words, "--config-path", str(config))


def _run(*command: str) -> str:
    """Return what a program says. Raises _NotBuilt with its last line, OSError."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=BUILD_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _NotBuilt(f"{Path(command[0]).name} took longer than {BUILD_S:g} s") from None
    text = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        lines = text.splitlines() or ["it said nothing"]
        raise _NotBuilt(f"{Path(command[0]).name} failed: {lines[-1]}")
    return text

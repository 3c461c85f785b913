"""Python models that end the process that loads or runs them, by the ways in which models do."""

from __future__ import annotations

import textwrap
from pathlib import Path

POISON, HARMLESS = 9.0, 0.5
"""The first values of requests that end a process poisoned in `predict`, and that do not."""

# How each kind ends its process, and what of that users are told. "memory" does what the kernel's
# OOM killer does: to take this machine's memory would end others' processes.
KINDS = {
    "segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "exit": ("os._exit(3)", "exit code 3"),
    "abort": ("os.abort()", "SIGABRT"),
    "stack": ("sys.setrecursionlimit(1 << 30); repr(nested())", "SIGSEGV"),
    "sigbus": ("truncated()[0]", "SIGBUS"),
    "memory": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
}
SOURCE = """
import ctypes, mmap, os, signal, sys, tempfile, time

def nested():
    value = []
    for _ in range(10**6):
        value = [value]
    return value

def truncated():
    file = tempfile.TemporaryFile()
    file.truncate(4096)
    mapped = mmap.mmap(file.fileno(), 4096)
    file.truncate(0)
    return mapped

class Model:
    inputs = [("x", "FP32", [-1, 8])]
    outputs = [("y", "FP32", [-1, 8])]

    def __init__(self):
        self.where = {where!r}
        if self.where == "load":
            {end}

    def predict(self, inputs):
        if self.where == "predict" and inputs["x"][0, 0] > 1:
            {end}
        return {{"y": inputs["x"] * 2}}
"""


def write(folder: Path, where: str, end: str = "pass") -> str:
    """Write a model that ends its process in `where`, "load" or "predict", by the code of `end`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(textwrap.dedent(SOURCE).format(where=where, end=end))
    return str(folder)

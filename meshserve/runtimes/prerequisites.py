"""Check what a runtime needs: a library that an extra installs, and a device."""

from __future__ import annotations

import ctypes
import functools
import importlib
from typing import Any

from meshserve import errors


def import_library(module: str, library: str, extra: str) -> Any:
    """Import and return a module of an optional library, which messages call `library`.

    Raises MissingExtra with the command that installs it, LoadFailed if it is installed but broken.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # The library is there, but lacks a module that it imports: its extra would not help.
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise errors.LoadFailed(f"{library} can't be imported: {error}") from error
        raise errors.MissingExtra(
            f"this model needs {library}: pip install 'meshserve[{extra}]'"
        ) from error
    except ImportError as error:
        raise errors.LoadFailed(f"{library} can't be imported: {error}") from error


@functools.cache
def has_cuda() -> bool:
    """Return whether NVIDIA's driver is installed and sees at least one GPU."""
    # The driver is called directly, because GPU libraries initialise the GPU when they are asked.
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )


def check_device(device: str) -> None:
    """Raise LoadFailed for a device that does not exist, or for CUDA on a machine without it."""
    if device not in ("cpu", "cuda"):
        raise errors.LoadFailed(f"device {device!r} does not exist; there is: cpu, cuda")
    if device == "cuda" and not has_cuda():
        raise errors.LoadFailed(
            "the pool asks for device cuda, but this machine has no CUDA GPU or driver"
        )

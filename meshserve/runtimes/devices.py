"""Whether this machine has a GPU, without any library that would use it."""

from __future__ import annotations

import ctypes
import functools

from meshserve import errors


@functools.cache
def cuda_is_available() -> bool:
    """Whether NVIDIA's driver is here and sees at least one GPU. Asked once per process."""
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


def require_known(device: str) -> None:
    """Refuse a device that does not exist, or CUDA on a machine without it. Raises LoadFailed."""
    if device not in ("cpu", "cuda"):
        raise errors.LoadFailed(f"device {device!r} does not exist; there is: cpu, cuda")
    if device == "cuda" and not cuda_is_available():
        raise errors.LoadFailed(
            "the pool asks for device cuda, but this machine has no CUDA GPU or driver"
        )

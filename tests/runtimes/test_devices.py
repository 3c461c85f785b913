from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.runtimes import devices


def test_cpu_is_always_there():
    devices.require_known("cpu")


def test_an_unknown_device_is_refused_with_those_there_are():
    with pytest.raises(errors.LoadFailed, match="'gpu' does not exist; there is: cpu, cuda"):
        devices.require_known("gpu")


def test_cuda_is_known_only_where_it_is():
    if devices.cuda_is_available():
        devices.require_known("cuda")
    else:
        with pytest.raises(errors.LoadFailed, match="no CUDA GPU or driver"):
            devices.require_known("cuda")

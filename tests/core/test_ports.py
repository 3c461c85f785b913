"""What is shipped takes what its port takes, and promises what it promises."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from pathlib import PurePath

import pytest

from meshserve.core import ports
from meshserve.runtimes import onnx, programs, python, registry, tabular
from meshserve.storage import store

PAIRS = [
    *((ports.Runtime, type(runtime)) for runtime in registry.RUNTIMES),
    *((ports.LoadedModel, loaded) for loaded in (onnx.OnnxModel, python.PythonModel, programs.TorchModel, tabular.TabularModel)),
    (ports.Parkable, programs.CudaModel),
    (ports.LoadedModel, programs.CudaModel),
    (ports.Detachable, programs.MappedModel),
    (ports.Storage, store.Store),
]
METHODS = [
    (port, shipped, name)
    for port, shipped in PAIRS
    for name, promised in vars(port).items()
    if inspect.isfunction(promised) and not name.startswith("_")
]


@pytest.mark.parametrize(("port", "shipped", "name"), METHODS, ids=lambda part: getattr(part, "__name__", part))
def test_a_method_takes_what_its_port_says(port, shipped, name):
    promised, found = getattr(port, name), getattr(shipped, name)
    assert list(inspect.signature(found).parameters) == list(inspect.signature(promised).parameters)
    assert asyncio.iscoroutinefunction(found) == asyncio.iscoroutinefunction(promised)


def test_each_runtime_has_a_name_of_its_own():
    assert len({runtime.name for runtime in registry.RUNTIMES}) == len(registry.RUNTIMES)


def test_an_artifact_can_t_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ports.Artifact(PurePath("/m"), "sha256:0", 1).size_bytes = 2

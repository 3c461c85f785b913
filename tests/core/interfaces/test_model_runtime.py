"""What is shipped takes what its port takes, and promises what it promises."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from pathlib import PurePath

import pytest

from meshserve.core.interfaces import model_runtime
from meshserve.runtimes import lookup, onnx, python, tabular, torch_export
from meshserve.storage import store

PAIRS = [
    *((model_runtime.Runtime, type(runtime)) for runtime in lookup.RUNTIMES),
    *(
        (model_runtime.LoadedModel, loaded)
        for loaded in (
            onnx.OnnxModel,
            python.PythonModel,
            torch_export.TorchModel,
            tabular.TabularModel,
        )
    ),
    (model_runtime.Parkable, torch_export.CudaModel),
    (model_runtime.LoadedModel, torch_export.CudaModel),
    (model_runtime.Detachable, torch_export.MappedModel),
    (model_runtime.Storage, store.ArtifactStore),
]
METHODS = [
    (port, shipped, name)
    for port, shipped in PAIRS
    for name, promised in vars(port).items()
    if inspect.isfunction(promised) and not name.startswith("_")
]


@pytest.mark.parametrize(
    ("port", "shipped", "name"), METHODS, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_method_takes_what_its_port_says(port, shipped, name):
    promised, found = getattr(port, name), getattr(shipped, name)
    assert list(inspect.signature(found).parameters) == list(inspect.signature(promised).parameters)
    assert asyncio.iscoroutinefunction(found) == asyncio.iscoroutinefunction(promised)


def test_each_runtime_has_a_name_of_its_own():
    assert len({runtime.name for runtime in lookup.RUNTIMES}) == len(lookup.RUNTIMES)


def test_an_artifact_can_t_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        model_runtime.Artifact(PurePath("/m"), "sha256:0", 1).size_bytes = 2

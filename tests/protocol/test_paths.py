"""Every method of our services has a path, and no path has two names."""

from __future__ import annotations

from types import ModuleType

import pytest

from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2, model_repository_pb2, modelmesh_pb2

CONSTANTS = {name: value for name, value in vars(paths).items() if name.isupper()}


@pytest.mark.parametrize("module", [inference_pb2, model_repository_pb2, modelmesh_pb2])
def test_every_method_has_its_path(module: ModuleType) -> None:
    known = set(filter(lambda value: isinstance(value, str), CONSTANTS.values()))
    known |= {paths.in_repository_service(paths.REPOSITORY_INDEX)}
    known |= {paths.in_repository_service(paths.REPOSITORY_MODEL_LOAD)}
    known |= {paths.in_repository_service(paths.REPOSITORY_MODEL_UNLOAD)}
    for service in module.DESCRIPTOR.services_by_name.values():
        methods = {f"/{service.full_name}/{name}" for name in service.methods_by_name}
        assert methods <= known


def test_no_path_has_two_names() -> None:
    assert len(set(CONSTANTS.values())) == len(CONSTANTS)


def test_a_method_is_known_by_its_last_part() -> None:
    assert paths.method_name(paths.MODEL_INFER) == "ModelInfer"
    assert (
        paths.in_repository_service(paths.REPOSITORY_INDEX)
        == "/inference.model_repository.ModelRepositoryService/RepositoryIndex"
    )

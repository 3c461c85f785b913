"""The controller's process, made by the module that names all parts."""

from __future__ import annotations

from meshserve.launch import compose
from tests.launch import processes


def test_it_has_the_registry_and_no_library_of_models() -> None:
    used = processes.imported_by(compose.__name__)
    assert {"ray", "sqlalchemy", "pydantic"} <= used
    assert not used & {"onnxruntime", "torch"}

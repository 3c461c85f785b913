from __future__ import annotations

import pytest

from meshserve import config, errors
from meshserve.config import model_schema
from meshserve.core.values import desired, model


def test_a_model_has_its_own_load_timeout_or_its_pools() -> None:
    own = config.parse_model({"name": "a", "uri": "/a", "load_timeout_s": 9})
    assert own.spec(11.0, model.FROM_API).load_timeout_s == 9.0
    default = config.parse_model({"name": "a", "uri": "/a"})
    assert default.spec(11.0, model.FROM_API).load_timeout_s == 11.0


def test_a_model_says_where_it_runs_or_leaves_that_to_its_pool() -> None:
    specs = [
        config.parse_model({"name": "a", "uri": "/a", **own}).spec(1.0, model.FROM_API)
        for own in ({}, {"isolate": "process"}, {"isolate": "none"})
    ]
    assert [spec.isolate for spec in specs] == ["", "process", "none"]
    with pytest.raises(errors.ConfigInvalid, match="isolate: expected none or process, got"):
        config.parse_model({"name": "a", "uri": "/a", "isolate": "procces"})


def test_aliases_mean_one_version() -> None:
    entry = config.parse_model({"name": "a", "uri": "/a", "version": 3, "aliases": ["b"]})
    assert entry.desired_aliases() == (desired.DesiredAlias("b", "a", "3", model.FROM_CONFIG),)


def test_a_repository_is_a_path_or_a_uri() -> None:
    section = model_schema.RepositorySection.model_validate({"uri": "file:///b/r", "trust": True})
    assert section.settings() == desired.RepositorySettings("/b/r", trust=True)


def test_one_model_for_the_management_api() -> None:
    entry = config.parse_model({"name": "a", "uri": "https://host/a.onnx", "version": 3})
    assert entry.spec(11.0, model.FROM_API) == model.ModelSpec(
        model.ModelId("a", "3"), "https://host/a.onnx", load_timeout_s=11.0, origin=model.FROM_API
    )


def test_a_wrong_model_for_the_management_api() -> None:
    with pytest.raises(
        errors.ConfigInvalid, match=r"^pined: unknown key; did you mean 'pinned'\?$"
    ):
        config.parse_model({"name": "a", "uri": "/a", "pined": True})

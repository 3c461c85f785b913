from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshserve import config, errors
from meshserve.config import model_schema, schema
from meshserve.core.interfaces import cluster_control


def test_home_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHSERVE_HOME", "/var/lib/meshserve")
    assert schema.home() == Path("/var/lib/meshserve")


def test_home_is_in_the_users_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHSERVE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert schema.home() == Path("/home/someone/.meshserve")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ((), "gateway"),
        (("gateway",), "listen"),
        (("gateway", "keys", 0), "key_env"),
        (("pools", "models"), "memory"),
        (("models", 3), "uri"),
        (("models", 0, "inputs", 1), "shape"),
        (("llms", 0), "tensor_parallel_size"),
        (("llms", 0, "replicas"), "min"),
        (("llms", 0, "adapters", 0), "uri"),
        (("llms", 0, "held"), "wait_s"),
    ],
)
def test_known_keys_are_those_of_the_section(path: Any, key: str) -> None:
    assert key in schema.known_keys(schema.Config, path)


def test_known_keys_of_a_model_alone() -> None:
    assert "datatype" in schema.known_keys(model_schema.ModelSection, ("outputs", 0))


def test_a_pool_says_where_its_models_run() -> None:
    parsed = config.parse({"pools": {"own": {"isolate": "process"}}})
    capacity = cluster_control.WorkerCapacity(cores=2, gpus=0)
    assert parsed.pool_settings("own", capacity).settings.isolate == "process"
    assert parsed.pool_settings("default", capacity).settings.isolate == "none"


def test_the_schema_describes_every_key() -> None:
    described = config.json_schema()
    assert set(described["properties"]) == set(schema.Config.model_fields)
    sections = {**described["$defs"], "Config": described}
    for section in (section for section in sections.values() if "properties" in section):
        properties = section["properties"]
        assert all(shape.get("description") for shape in properties.values())


def test_the_schema_refuses_unknown_keys() -> None:
    described = config.json_schema()
    assert described["additionalProperties"] is False
    assert described["$defs"]["ModelSection"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("gateway", "roots"),
    [
        ({}, ("/",)),
        ({"file_roots": []}, ()),
        ({"file_roots": ["/srv"]}, ("/srv",)),
        ({"listen": "0.0.0.0:8080"}, ()),
        ({"keys": [{"client": "boss", "key": "k", "admin": True}]}, ()),
        ({"keys": [{"client": "boss", "key": "k"}], "file_roots": ["/"]}, ("/",)),
    ],
)
def test_clients_register_any_file_by_default_only_as_users_of_a_machine_without_keys(
    gateway: dict[str, Any], roots: tuple[str, ...]
) -> None:
    assert schema.GatewaySection.model_validate(gateway).settings().file_roots == roots


@pytest.mark.parametrize(
    ("placement", "problem"),
    [
        (
            {"labels": {"zone": ""}},
            r"placement\.labels\.zone: expected a label's value: .*, got ''",
        ),
        ({"labels": {"a b": "c"}}, r"placement\.labels\.a b.*: expected a label's name: .*'a b'"),
        ({"strategy": "random"}, r"placement\.strategy: expected spread or pack, got 'random'"),
        ({"nodes": 3}, r"placement\.nodes: unknown key"),
    ],
)
def test_a_wrong_placement_is_refused(placement: Any, problem: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match=problem):
        config.parse({"pools": {"p": {"placement": placement}}})


@pytest.mark.parametrize(
    ("placement", "problem"),
    [
        ({"labels": {"zone": ""}}, r"gateway\.placement\.labels\.zone: expected a label's value"),
        ({"labels": {"a b": "c"}}, r"gateway\.placement\.labels\.a b.*: expected a label's name"),
        ({"strategy": "spread"}, r"gateway\.placement\.strategy: unknown key"),
        ("front", r"gateway\.placement: expected"),
    ],
)
def test_a_wrong_placement_of_gateways_is_refused(placement: Any, problem: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match=problem):
        config.parse({"gateway": {"placement": placement}})


def test_a_placement_reaches_the_gateways() -> None:
    settings = config.parse({"gateway": {"placement": {"labels": {"role": "front", "a": "b"}}}})
    assert settings.gateway.settings().labels == (("a", "b"), ("role", "front"))
    assert config.parse({}).gateway.settings().labels == ()


def test_a_placement_reaches_the_workers() -> None:
    placement = {"labels": {"zone": "b", "example.com/disk": "ssd"}, "strategy": "pack"}
    settings = config.parse({"pools": {"p": {"placement": placement}}})
    worker = settings.pool_settings("p", cluster_control.WorkerCapacity(1, 0)).settings
    assert worker.labels == (("example.com/disk", "ssd"), ("zone", "b"))
    assert worker.is_packed

"""What a configuration may not say on Kubernetes: the field, and a part of the reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kubernetes import meshes

Json = dict[str, Any]

REFUSED = [
    ({"gateway": {"keys": [{"client": "a", "key": "s3cret"}]}}, "gateway.keys[0].key", "key_env"),
    (
        {"gateway": {"keys": [{"client": "a", "key_env": "A-B"}]}},
        "gateway.keys[0].key_env",
        "no name of a variable",
    ),
    (
        {"gateway": {"keys": [{"client": "meshserve-canary", "key_env": "A"}]}},
        "gateway.keys[0]",
        "the probe's",
    ),
    (
        {"models": [{"name": "meshserve-canary", "uri": "s3://b/a"}]},
        "models[0].name",
        "readiness probe's",
    ),
    ({"gateway": {"listen": "127.0.0.1:80"}}, "gateway.listen", "without root's rights"),
    ({"gateway": {"listen": "0.0.0.0:6379"}}, "gateway.listen", "Ray's"),
    ({"gateway": {"listen": "0.0.0.0:10500"}}, "gateway.listen", "Ray's"),
    ({"registry": {"url": "postgresql://u:p@h/d"}}, "registry.url", "no place for secrets"),
    ({"registry": {"url": "sqlite:////data/r.db"}}, "registry.url", "leave registry.url out"),
    (
        {"registry": {"url": "sqlite:////var/lib/meshserve/state/../r.db"}},
        "registry.url",
        "leave registry.url out",
    ),
    ({"cache": {"path": "/cache"}}, "cache.path", "leave cache.path out"),
    ({"models": [{"name": "a", "uri": "/data/a.onnx"}]}, "models[0].uri", "not in the pods"),
    ({"models": [{"name": "a", "uri": "file:///d/a%20b"}]}, "models[0].uri", "/d/a b is not"),
    ({"repositories": [{"path": "/data"}]}, "repositories[0]", "not in the pods"),
    ({"llms": [{"name": "a", "uri": "/w"}]}, "llms[0].uri", "not in the pods"),
    (
        {"llms": [{"name": "a", "uri": "hf://a/b", "adapters": [{"name": "c", "uri": "/w"}]}]},
        "llms[0].adapters[0].uri",
        "not in the pods",
    ),
    ({"kubernetes": {"namespace": "A"}}, "kubernetes.namespace", "no namespace"),
    ({"kubernetes": {"namespace": "a" * 64}}, "kubernetes.namespace", "no namespace"),
    ({"kubernetes": {"secret": "a_b"}}, "kubernetes.secret", "no name of an object"),
    ({"kubernetes": {"token_secret": "A"}}, "kubernetes.token_secret", "no name of an object"),
    ({"kubernetes": {"clients": {"a b": "c"}}}, "kubernetes.clients.a b", "no key of a label"),
    (
        {"kubernetes": {"volumes": {"A": {"claim": "a", "path": "/a"}}}},
        "kubernetes.volumes.A",
        "no name of a volume",
    ),
    (
        {"kubernetes": {"volumes": {"tmp": {"claim": "a", "path": "/a"}}}},
        "kubernetes.volumes.tmp",
        "a volume of ours",
    ),
    (
        {"kubernetes": {"volumes": {"a": {"claim": "A", "path": "/a"}}}},
        "kubernetes.volumes.a.claim",
        "no name of a PersistentVolumeClaim",
    ),
    *(
        (
            {"kubernetes": {"volumes": {"a": {"claim": "a", "path": path}}}},
            "kubernetes.volumes.a.path",
            "hides folders",
        )
        for path in ("/", "/etc/meshserve", "/tmp/a", "/var/lib/meshserve/models", "/var", "/a:b")
    ),
    (
        {"kubernetes": {"volumes": {n: {"claim": "a", "path": "/a"} for n in ("a", "b")}}},
        "kubernetes.volumes.b.path",
        "another volume's",
    ),
    ({"kubernetes": {"name": "a" * 54}}, "kubernetes.name", "rule name-length"),
    ({"kubernetes": {"name": "Mesh"}}, "kubernetes.name", "rule name-dns-1035"),
    (
        {"kubernetes": {"gcs": {"backend": "rocksdb"}}},
        "kubernetes.patch",
        "rule rocksdb-gate, field spec.gcsFaultToleranceOptions.backend",
    ),
    (
        {"kubernetes": {"patch": {"headGroupSpec": {"rayStartParams": {"labels": "a=b"}}}}},
        "kubernetes.patch",
        "rule labels-parameter, field spec.headGroupSpec.rayStartParams.labels",
    ),
]


@pytest.mark.parametrize(("change", "field", "reason"), REFUSED)
def test_a_fault_names_the_field_and_the_reason(change: Json, field: str, reason: str) -> None:
    results = meshes.faults(meshes.PLAIN | change)
    assert [fault for fault in results if fault.startswith(f"{field}: ") and reason in fault], (
        results
    )


ACCEPTED = [
    {"gateway": {"keys": [{"client": "a", "key_env": "A_1"}]}},
    {"gateway": {"listen": "127.0.0.1:9000"}},
    {"registry": {"url": "postgresql://u@h/d"}},
    {"registry": {"url": "sqlite:////var/lib/meshserve/state/r.db"}},
    {"cache": {"path": "/var/lib/meshserve/state/c"}},
    {
        "models": [{"name": "a", "uri": "file:///m/a"}, {"name": "b", "uri": "/m/b/c"}],
        "kubernetes": {"volumes": {"m": {"claim": "a", "path": "/m"}}},
    },
    {"kubernetes": {"name": "a" * 53}},
    {
        "kubernetes": {
            "gcs": {"backend": "rocksdb"},
            "feature_gates": ["GCSFaultToleranceEmbeddedStorage"],
        }
    },
]


@pytest.mark.parametrize("change", ACCEPTED)
def test_what_is_right_has_no_fault(change: Json) -> None:
    assert meshes.faults(meshes.PLAIN | change) == []


def test_a_service_needs_a_database_that_two_clusters_share() -> None:
    (fault,) = meshes.faults(meshes.PLAIN, is_served=True)
    assert fault.startswith("registry.url: --serve has two clusters")


def test_nothing_is_wrong_with_the_examples() -> None:
    assert meshes.faults(meshes.FULL) == []

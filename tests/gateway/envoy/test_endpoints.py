"""Every method and path has a target."""

from __future__ import annotations

from meshserve.gateway.envoy import clusters, endpoints
from meshserve.protocol.pb import inference_pb2, model_repository_pb2, modelmesh_pb2

OURS = (inference_pb2, model_repository_pb2, modelmesh_pb2)


def every_method() -> list[str]:
    services = [
        service for module in OURS for service in module.DESCRIPTOR.services_by_name.values()
    ]
    return [
        f"/{service.full_name}/{method}"
        for service in services
        for method in service.methods_by_name
    ]


def is_served(targets: endpoints.Targets, path: str) -> bool:
    return path in targets.exact or any(path.startswith(under) for under in targets.under)


def test_every_method_of_every_service_leads_somewhere() -> None:
    targets = endpoints.targets("pool-default")
    assert [path for path in every_method() if not is_served(targets, path)] == []
    assert all(targets.exact[path].is_grpc for path in every_method() if path in targets.exact)


def test_every_unary_method_may_come_compressed() -> None:
    own = set(endpoints.SIDECAR_METHODS)
    assert {path for path in every_method() if not is_served(endpoints.compressed(), path)} == own


def test_the_default_cluster_is_where_models_are_looked_for() -> None:
    targets = endpoints.targets("pool-x")
    to_pool = {
        path
        for path, target in {**targets.exact, **targets.under}.items()
        if target.cluster == "pool-x"
    }
    assert to_pool == set(endpoints.MODEL_METHODS) | {
        "/v2/models/",
        "/v1/models/",
    }
    assert endpoints.STATISTICS.cluster == clusters.CONTROLLER

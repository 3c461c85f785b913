from __future__ import annotations

from typing import Any

from meshserve.kubernetes import pod_templates, service_objects
from tests.kubernetes import meshes

Json = dict[str, Any]


def pod_labels(content: Json) -> list[dict[str, str]]:
    settings = meshes.settings(content)
    pods = [pod_templates.head(settings)]
    pods += [pod_templates.worker(settings, group) for group in meshes.groups(content)]
    return [pod["metadata"]["labels"] for pod in pods]


def chosen(selector: dict[str, str], content: Json) -> list[dict[str, str]]:
    return [labels for labels in pod_labels(content) if selector.items() <= labels.items()]


def test_the_service_leads_to_the_gateways_of_all_workers() -> None:
    content = {**meshes.FULL, "gateway": {"listen": "0.0.0.0:9000"}}
    spec = service_objects.service(meshes.settings(content))["spec"]
    assert len(chosen(spec["selector"], content)) == len(meshes.groups(content))
    assert spec["ports"] == [{"name": "gateway", "port": 9000, "targetPort": 9000}]


def test_no_pod_is_in_two_budgets() -> None:
    for content in (meshes.PLAIN, meshes.FULL):
        settings, groups = meshes.settings(content), meshes.groups(content)
        budgets = service_objects.disruption_budgets(settings, groups, is_served=False)
        selectors = [budget["spec"]["selector"]["matchLabels"] for budget in budgets]
        for labels in pod_labels(content):
            assert sum(selector.items() <= labels.items() for selector in selectors) <= 1


def test_a_head_stays_unless_another_can_go_on_with_its_tables() -> None:
    def names(content: Json) -> list[str]:
        settings, groups = meshes.settings(content), meshes.groups(content)
        budgets = service_objects.disruption_budgets(settings, groups, is_served=False)
        return [budget["metadata"]["name"] for budget in budgets]

    assert "mesh-head" in names(meshes.PLAIN)
    assert "shop-head" not in names(meshes.FULL)


def ports_open_to_strangers(policies: list[Json]) -> set[int]:
    return {
        port["port"]
        for policy in policies
        for rule in policy["spec"]["ingress"]
        if rule["from"] != [{"podSelector": policies[0]["spec"]["podSelector"]}]
        for port in rule["ports"]
    }


def test_strangers_reach_the_gateways_port_alone() -> None:
    settings = meshes.settings(meshes.FULL)
    policies = service_objects.network_policies(settings, is_served=False)
    assert ports_open_to_strangers(policies) == {8080}
    for policy in policies:
        selector = policy["spec"]["podSelector"]["matchLabels"]
        assert chosen(selector, meshes.FULL) == pod_labels(meshes.FULL)
    served = service_objects.network_policies(settings, is_served=True)
    assert ports_open_to_strangers(served) == {8080, 8265}


def clients(content: Json) -> Json:
    policies = service_objects.network_policies(meshes.settings(content), is_served=False)
    (source,) = policies[1]["spec"]["ingress"][0]["from"]
    results: Json = source
    return results


def test_without_keys_only_the_own_namespace_may_ask() -> None:
    keys = {"gateway": {"keys": [{"client": "a", "key_env": "A"}]}}
    assert clients({}) == {"podSelector": {}}
    assert clients(keys) == {"namespaceSelector": {}}
    assert clients({"kubernetes": {"clients": {}}}) == {"namespaceSelector": {}}
    assert clients({"kubernetes": {"clients": {"a": "b"}}}) == {
        "namespaceSelector": {"matchLabels": {"a": "b"}}
    }


def test_metrics_are_asked_once_with_a_key_of_the_secret() -> None:
    spec = service_objects.pod_monitor(meshes.settings(meshes.FULL))["spec"]
    assert len(chosen(spec["selector"]["matchLabels"], meshes.FULL)) == 1
    (endpoint,) = spec["podMetricsEndpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert credentials == {"name": "shop-keys", "key": "MESHSERVE_CANARY_KEY"}


def test_an_inference_pool_has_the_same_pods_as_the_service() -> None:
    settings = meshes.settings(meshes.FULL)
    pool = service_objects.inference_pool(settings)["spec"]
    assert pool["selector"]["matchLabels"] == service_objects.service(settings)["spec"]["selector"]
    assert pool["targetPorts"] == [{"number": 8080}]

"""The reference of config.yaml for docs/config.md: a table for each section of the schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from meshserve.config import (
    fields,
    kubernetes_schema,
    llm_schema,
    model_schema,
    schema,
    workers_schema,
)

SECTIONS: tuple[tuple[str, type[fields.Section]], ...] = (
    ("top level", schema.Config),
    ("gateway", schema.GatewaySection),
    ("gateway.keys[]", schema.KeySection),
    ("gateway.placement", schema.GatewayPlacementSection),
    ("registry", schema.RegistrySection),
    ("cache", schema.CacheSection),
    ("ray", schema.RaySection),
    ("logging", schema.LoggingSection),
    ("metrics", schema.MetricsSection),
    ("pools.NAME", schema.PoolSection),
    ("pools.NAME.workers", workers_schema.WorkersSection),
    ("pools.NAME.placement", schema.PlacementSection),
    ("models[]", model_schema.ModelSection),
    ("models[].inputs[], models[].outputs[]", model_schema.TensorSection),
    ("repositories[]", model_schema.RepositorySection),
    ("llms[]", llm_schema.LlmSection),
    ("llms[].replicas", llm_schema.ReplicasSection),
    ("llms[].adapters[]", llm_schema.AdapterSection),
    ("llms[].held", llm_schema.HeldSection),
    ("kubernetes", kubernetes_schema.KubernetesSection),
    ("kubernetes.head", kubernetes_schema.HeadPodSection),
    ("kubernetes.gcs", kubernetes_schema.GcsSection),
    ("kubernetes.groups.NAME", kubernetes_schema.PodGroupSection),
    ("kubernetes.groups.NAME.replicas", kubernetes_schema.PodReplicasSection),
    ("kubernetes.volumes.NAME", kubernetes_schema.PodVolumeSection),
)
HEAD = "| key | value | default | what it does |\n|---|---|---|---|"
BINARY = (("GiB", 1 << 30), ("MiB", 1 << 20))


def markdown() -> str:
    """Return a table for each section with the key, value, default and meaning of each setting."""
    return "\n".join(_section(title, section) for title, section in SECTIONS)


def _section(title: str, section: type[fields.Section]) -> str:
    description = section.model_json_schema()
    rows = (
        _row(key, described, key in description.get("required", ()))
        for key, described in description["properties"].items()
    )
    summary = inspect.cleandoc(section.__doc__ or "").replace("\n", " ")
    return "\n".join((f"### `{title}`\n\n{summary}\n\n{HEAD}", *rows, ""))


def _row(key: str, described: Mapping[str, Any], is_required: bool) -> str:
    default = "**needed**" if is_required else _default(described)
    kinds, meaning = " or ".join(_kinds(described)), " ".join(described["description"].split())
    return f"| `{key}` | {kinds} | {default} | {meaning} |"


def _default(described: Mapping[str, Any]) -> str:
    value = described.get("default")
    # Defaults of sections are in the tables of those sections.
    if value in (None, "", [], {}) or isinstance(value, dict):
        return ""
    if described.get("title") == "size":
        value = next(
            (
                f"{value // factor}{unit}"
                for unit, factor in BINARY
                if value and value % factor == 0
            ),
            value,
        )
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _kinds(described: Mapping[str, Any]) -> Iterator[str]:
    if described.get("title") == "size":
        yield "size"
    elif "enum" in described or "const" in described:
        yield from (f"`{word}`" for word in described.get("enum", [described.get("const")]))
    elif "anyOf" in described or "oneOf" in described:
        for choice in described.get("anyOf") or described["oneOf"]:
            yield from _kinds(choice)
    elif described.get("type") != "null":
        yield {
            "string": "text",
            "integer": "whole number",
            "number": "number",
            "boolean": "true or false",
            "array": "list",
        }.get(described.get("type", ""), "mapping")

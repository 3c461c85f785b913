"""What Kubernetes' API server says of an object: strict schemas, and rules of custom resources."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cel
import jsonschema
import kubernetes_validate
import yaml

Json = dict[str, Any]

CRDS = Path(__file__).parent / "crds"
VERSION = kubernetes_validate.latest_version()


@functools.cache
def custom_resources() -> dict[tuple[str, str], Json]:
    """The stored schema of each custom resource, by its API version and kind."""
    results: dict[tuple[str, str], Json] = {}
    for path in sorted(CRDS.glob("*.yaml")):
        definition = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        spec = definition["spec"]
        for version in spec["versions"]:
            name = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            results[name] = _strict(version["schema"]["openAPIV3Schema"])
    return results


def _strict(schema: Any) -> Any:
    """The schema with unknown fields forbidden, as `--validate=strict` has it."""
    if isinstance(schema, list):
        return [_strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        return {key: value for key, value in result.items() if key != "type"} | {
            "anyOf": [{"type": "integer"}, {"type": "string"}]
        }
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def faults(manifest: Json) -> list[str]:
    """What is wrong with an object by its schema and rules; nothing for a good one."""
    name = (manifest["apiVersion"], manifest["kind"])
    if name not in custom_resources():
        return _builtin_faults(manifest)
    schema = dict(custom_resources()[name])
    schema["properties"] = {
        **schema["properties"],
        "metadata": {"type": "object"},  # its own schema is that of every object
    }
    results = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    ]
    return [*results, *_rule_faults(schema, manifest, "$")]


def _builtin_faults(manifest: Json) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def _rule_faults(schema: Any, value: Any, path: str) -> Iterator[str]:
    """What `x-kubernetes-validations` refuse. Rules of a change hold where nothing was before."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not cel.evaluate(rule["rule"], {"self": value}):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        for key, part in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(below, dict):
                yield from _rule_faults(below, part, f"{path}.{key}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, part in enumerate(value):
            yield from _rule_faults(schema["items"], part, f"{path}[{index}]")

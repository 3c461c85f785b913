from __future__ import annotations

import json
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from meshserve.protocol.pb import (
    inference_pb2,
    model_config_pb2,
    model_repository_pb2,
    modelmesh_pb2,
    pool,
)

ROOT = Path(__file__).parent.parent.parent
COPIED = Path(__file__).parent / "wire.json"
SHARED = ROOT.parent / "shared" / "contracts" / "wire.json"
OURS = [inference_pb2, model_config_pb2, model_repository_pb2, modelmesh_pb2]
TOLD_TO_KSERVE = ["RepositoryModelLoadResponse", "RepositoryModelUnloadResponse"]
# Number and field that meshserve adds to a message; clients that don't know it pass it over.
ADDED = {"ModelMetadataResponse": {"1000": "bool has_loose_inputs [oneof _has_loose_inputs]"}}
TYPES = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool",
    9: "string", 12: "bytes", 13: "uint32",
}  # fmt: skip


@pytest.fixture(params=[COPIED, SHARED], ids=["copied", "shared"])
def facts(request: pytest.FixtureRequest) -> Any:
    if not request.param.exists():
        pytest.skip("the shared facts are not here")
    return json.loads(request.param.read_text())


def short(descriptor: Any) -> Any:
    return descriptor.full_name.removeprefix(f"{descriptor.file.package}.")


def field(descriptor: Any) -> str:
    kind = (
        TYPES.get(descriptor.type)
        or f".{(descriptor.message_type or descriptor.enum_type).full_name}"
    )
    label = (
        "map " if is_map(descriptor.message_type) else "repeated " if descriptor.is_repeated else ""
    )
    oneof = f" [oneof {descriptor.containing_oneof.name}]" if descriptor.containing_oneof else ""
    return f"{label}{kind} {descriptor.name}{oneof}"


def is_map(message: Any) -> bool:
    return message is not None and message.GetOptions().map_entry


def messages_under(descriptors: Any) -> Iterator[Any]:
    for message in descriptors:
        if not is_map(message):
            yield message
            yield from messages_under(message.nested_types)


def messages(*modules: Any) -> dict[str, Any]:
    types = [
        item
        for module in modules
        for item in messages_under(module.DESCRIPTOR.message_types_by_name.values())
    ]
    return {short(item): {str(one.number): field(one) for one in item.fields} for item in types}


def enums(*modules: Any) -> dict[str, Any]:
    types = [item for module in modules for item in module.DESCRIPTOR.enum_types_by_name.values()]
    for module in modules:
        for message in messages_under(module.DESCRIPTOR.message_types_by_name.values()):
            types.extend(message.enum_types)
    return {short(item): {one.name: one.number for one in item.values} for item in types}


def method(descriptor: Any) -> str:
    streams = (
        "stream " if descriptor.client_streaming else "",
        "stream " if descriptor.server_streaming else "",
    )
    request, response = descriptor.input_type.full_name, descriptor.output_type.full_name
    return f"{streams[0]}.{request} -> {streams[1]}.{response}"


def services(module: Any) -> dict[str, Any]:
    return {
        name: {item.name: method(item) for item in service.methods}
        for name, service in module.DESCRIPTOR.services_by_name.items()
    }


def test_inference_is_tritons_with_kserves_answers_about_the_repository(
    facts: dict[str, Any],
) -> None:
    kserves = {name: facts["kserve"]["messages"][name] for name in TOLD_TO_KSERVE}
    tritons = facts["triton"]["messages"] | facts["triton_model_config"]["messages"]
    ours = {name: tritons[name] | fields for name, fields in ADDED.items()}
    assert messages(inference_pb2, model_config_pb2) == tritons | kserves | ours
    assert enums(inference_pb2, model_config_pb2) == facts["triton_model_config"]["enums"]
    assert services(inference_pb2) == facts["triton"]["services"]
    assert {item.DESCRIPTOR.package for item in (inference_pb2, model_config_pb2)} == {"inference"}


@pytest.mark.parametrize(
    ("module", "system"),
    [(modelmesh_pb2, "modelmesh"), (model_repository_pb2, "mlserver_repository")],
)
def test_another_systems_service_is_that_systems(
    facts: dict[str, Any], module: ModuleType, system: str
) -> None:
    assert messages(module) == facts[system]["messages"]
    assert enums(module) == facts[system]["enums"]
    assert services(module) == facts[system]["services"]
    assert module.DESCRIPTOR.package == facts[system]["package"]


def test_the_copied_facts_are_the_shared_ones() -> None:
    if not SHARED.exists():
        pytest.skip("the shared facts are not here")
    copied, shared = json.loads(COPIED.read_text()), json.loads(SHARED.read_text())
    assert copied == {system: shared[system] for system in copied}


def test_our_messages_leave_the_names_in_the_default_pool_to_other_clients() -> None:
    assert (
        pool.POOL.FindMessageTypeByName("inference.ModelInferRequest")
        is inference_pb2.ModelInferRequest.DESCRIPTOR
    )
    for module in OURS:
        assert module.DESCRIPTOR.pool is not descriptor_pool.Default()


def test_the_generated_code_is_that_of_the_sources(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    compiled = tmp_path / "compiled"
    sources = [str(path) for path in (ROOT / "proto").glob("*.proto")]
    assert (
        protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={compiled}", *sources])
        == 0
    )
    said = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        said.Add(file)
    assert {Path(source).name for source in sources} == {module.DESCRIPTOR.name for module in OURS}
    for module in OURS:
        written = types.SimpleNamespace(DESCRIPTOR=said.FindFileByName(module.DESCRIPTOR.name))
        for facts_of in (messages, enums, services):
            assert facts_of(module) == facts_of(written)

"""Clients that belong to no server: curl, gRPC's reflection and health."""

from __future__ import annotations

import json
import subprocess

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import parser

from compat import cases, triton_wire, world

PEER = "any client"
SERVICES = (
    "inference.GRPCInferenceService",
    "inference.model_repository.ModelRepositoryService",
    "mmesh.ModelMesh",
    "grpc.health.v1.Health",
)
WAIT_S = 60
OK = 200
BODY = json.dumps(
    {"inputs": [world.tensor(name, "INT32", [1, 16], list(range(16))) for name in triton_wire.PAIR]}
)


def _curl(asked: world.World, *options: str, path: str = "/v2/models/simple/infer") -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", str(WAIT_S), *options]
    done = subprocess.run(
        [*command, f"http://{asked.endpoint}{path}"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


VERSIONS = ("--http1.0", "--http1.1", "--http2", "--http2-prior-knowledge")


@cases.swept(PEER, "curl", "curl's versions of HTTP", VERSIONS)
def versions_of_http(asked: world.World, version: str) -> None:
    """Every version of HTTP that goes without TLS."""
    answer = json.loads(_curl(asked, version, "--data", BODY))
    assert answer["outputs"][0]["data"] == [2 * value for value in range(16)]


@cases.case(PEER, "curl", "curl --head")
def heads(asked: world.World) -> None:
    """HEAD is answered as GET is, without a body."""
    for path in ("/v2/health/ready", "/v2/models/simple/ready", "/v2/models/simple"):
        assert " 200" in _curl(asked, "--head", path=path).partition("\n")[0], path


@cases.case(PEER, "curl", "curl with Expect: 100-continue and chunked bodies")
def long_and_chunked_bodies(asked: world.World) -> None:
    """Bodies that wait for 100-continue, and such of unknown length."""
    for header in ("Expect: 100-continue", "Transfer-Encoding: chunked"):
        answer = json.loads(_curl(asked, "--http1.1", "-H", header, "--data", BODY))
        assert answer["model_name"] == "simple", header


@cases.case(PEER, "reflection", "grpc_reflection of PyPI, as grpcurl does it")
def services(asked: world.World) -> None:
    """All services are listed with their methods and messages."""
    assert set(SERVICES) <= set(asked.reflected.services())
    for service in SERVICES:
        assert asked.reflected.methods(service), service


@cases.case(PEER, "reflection", "grpc_reflection of PyPI, as grpcurl does it")
def calls_without_protocol_files(asked: world.World) -> None:
    """Calls whose messages come from the reflection alone."""
    live = asked.reflected.call("inference.GRPCInferenceService.ServerLive", {})
    assert live == {"live": True}
    answer = asked.reflected.call(
        "inference.GRPCInferenceService.ModelMetadata", {"name": "simple"}
    )
    assert answer["versions"] == ["1"]
    index = asked.reflected.call(
        "inference.model_repository.ModelRepositoryService.RepositoryIndex", {}
    )
    assert "simple" in {entry["name"] for entry in index["models"]}


@cases.case(PEER, "reflection", "grpc.reflection.v1, which new clients ask for first")
def the_new_version_of_reflection(asked: world.World) -> None:
    """Both versions of reflection are described by themselves."""
    assert asked.reflected.methods("grpc.reflection.v1alpha.ServerReflection")
    assert "grpc.reflection.v1.ServerReflection" in asked.reflected.services()


@cases.case(PEER, "health", "grpc.health.v1")
def health(asked: world.World) -> None:
    """The health service, of the whole and of a service."""
    with grpc.insecure_channel(asked.endpoint) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICES[0]):
            status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING, service


@cases.case(PEER, "metrics", "Prometheus' text format")
def metrics(asked: world.World) -> None:
    """The metrics page parses."""
    answer = asked.rest.get("/metrics")
    assert answer.status_code == OK
    families = list(parser.text_string_to_metric_families(answer.text))
    assert any(family.name.startswith("meshserve") for family in families)

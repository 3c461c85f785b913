"""The sidecar's gRPC server, reached through Envoy."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from meshserve.core.values import snapshots
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc
from tests.gateway import conftest
from tests.gateway.conftest import first_field, member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

OURS = {
    "inference.GRPCInferenceService",
    "inference.model_repository.ModelRepositoryService",
    "mmesh.ModelMesh",
}
CHECK = health_pb2.HealthCheckRequest()
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


def stub(mesh: conftest.Mesh) -> Any:
    make_stub: Any = inference_pb2_grpc.GRPCInferenceServiceStub
    return make_stub(mesh.channel)


async def test_the_server_answers_live_ready_and_metadata(shared_mesh: conftest.Mesh) -> None:
    assert (await stub(shared_mesh).ServerLive(pb.ServerLiveRequest())).live
    assert (await stub(shared_mesh).ServerReady(pb.ServerReadyRequest())).ready
    facts = await stub(shared_mesh).ServerMetadata(pb.ServerMetadataRequest())
    assert (facts.name, bool(facts.version)) == ("meshserve", True)
    assert list(facts.extensions) == (await shared_mesh.http.get("/v2")).json()["extensions"]


async def test_readiness_follows_the_snapshot(mesh: conftest.Mesh) -> None:
    health = health_pb2_grpc.HealthStub(mesh.channel)
    watch = health.Watch(CHECK)
    assert (await watch.read()).status == SERVING
    await mesh.gateway.apply(with_readiness(mesh, is_ready=False))
    assert not (await stub(mesh).ServerReady(pb.ServerReadyRequest())).ready
    assert (await watch.read()).status == NOT_SERVING
    assert (await mesh.http.get("/v2/health/ready")).status_code == 503
    await mesh.gateway.apply(with_readiness(mesh, is_ready=True))
    assert (await watch.read()).status == SERVING
    assert (
        await health.Check(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
    ).status == SERVING
    watch.cancel()


def with_readiness(mesh: conftest.Mesh, *, is_ready: bool) -> snapshots.GatewaySnapshot:
    pools = {"default": (member(mesh.run_dir, "default-0", is_ready=is_ready),)}
    return type(mesh.snapshot)(mesh.snapshot.listen, mesh.snapshot.node, pools)


async def test_an_unknown_service_has_no_health_status(shared_mesh: conftest.Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_pb2_grpc.HealthStub(shared_mesh.channel).Check(
            health_pb2.HealthCheckRequest(service="nobody")
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_shows_every_service_and_its_messages(
    shared_mesh: conftest.Mesh, version: str
) -> None:
    def ask(**what: str) -> Any:
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        call = shared_mesh.channel.stream_stream(
            path,
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        return call(iter([reflection_pb2.ServerReflectionRequest(**what)])).read()

    services = {
        service.name for service in (await ask(list_services="")).list_services_response.service
    }
    assert services >= OURS | {"grpc.health.v1.Health"}
    for service in OURS:
        assert (
            await ask(file_containing_symbol=service)
        ).file_descriptor_response.file_descriptor_proto


async def test_an_uncompressed_call_does_not_go_through_the_sidecar(
    shared_mesh: conftest.Mesh,
) -> None:
    answer = await shared_mesh.call(
        first_field(b"iris"), "/inference.GRPCInferenceService/ModelReady"
    )
    assert answer["by"].startswith("default")


async def test_many_streams_run_at_once(shared_mesh: conftest.Mesh) -> None:
    answers = await asyncio.gather(
        *(stub(shared_mesh).ServerLive(pb.ServerLiveRequest()) for _ in range(200))
    )
    assert all(answer.live for answer in answers)

"""The node's grpc.aio server: streams, compressed messages, health, reflection, the server's own facts; what a bridge can't carry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from meshserve.core.values import snapshots
from meshserve.gateway.sidecar import decoding, relay, server_metadata
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2, model_repository_pb2, modelmesh_pb2

pb = inference_pb2

OURS = (inference_pb2, model_repository_pb2, modelmesh_pb2)
# Over the limit of a message, which Envoy enforces on what is relayed and explains better.
SLACK_BYTES = 64 * 1024

Handlers = dict[str, "grpc.RpcMethodHandler[Any, Any]"]


class SidecarGrpc:
    """A server that listens. `is_ready` is asked on every question for readiness."""

    def __init__(
        self, server: grpc.aio.Server, to: relay.Relay, is_ready: Callable[[], bool]
    ) -> None:
        self.health = health.aio.HealthServicer()
        self._server = server
        self.relay = to
        self._is_ready = is_ready

    async def refresh(self) -> None:
        """Tell those who watch the health service how it is now."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if self._is_ready()
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in ("", paths.INFERENCE_SERVICE):
            await self.health.set(service, status)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Stop listening; calls under way have `grace_s` to end."""
        await self._server.stop(grace_s)
        await self.relay.close()


async def listen(
    socket_path: str, snap: snapshots.GatewaySnapshot, is_ready: Callable[[], bool]
) -> SidecarGrpc:
    """Serve on a Unix socket behind Envoy, and relay to the snapshot's `listen`."""
    limit = ("grpc.max_receive_message_length", snap.request_bytes_max + SLACK_BYTES)
    server = grpc.aio.server(
        interceptors=(decoding.Decoding(),), options=(limit, ("grpc.max_send_message_length", -1))
    )
    listening = SidecarGrpc(server, relay.Relay(snap.listen), is_ready)
    server.add_generic_rpc_handlers(tuple(_services(listening.relay, is_ready)))
    health_pb2_grpc.add_HealthServicer_to_server(listening.health, server)
    server.add_insecure_port(f"unix:{socket_path}")
    await server.start()
    await listening.refresh()
    return listening


def _services(to: relay.Relay, is_ready: Callable[[], bool]) -> list[grpc.GenericRpcHandler]:
    own = {paths.INFERENCE_SERVICE: _own_methods(to, is_ready)}
    services = [
        service for module in OURS for service in module.DESCRIPTOR.services_by_name.values()
    ]
    names = (
        *(service.full_name for service in services),
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
        paths.REFLECTION_SERVICE,
    )
    handlers = [
        grpc.method_handlers_generic_handler(
            service.full_name, _relayed(service, to) | own.get(service.full_name, {})
        )
        for service in services
    ]
    return [
        *handlers,
        *(
            grpc.method_handlers_generic_handler(name, _reflection(names))
            for name in (reflection.SERVICE_NAME, paths.REFLECTION_SERVICE)
        ),
    ]


def _relayed(service: Any, to: relay.Relay) -> Handlers:
    """Every method of the service, its messages untouched: they come here only if they were compressed."""
    paths = {name: f"/{service.full_name}/{name}" for name in service.methods_by_name}
    return {
        name: grpc.unary_unary_rpc_method_handler(functools.partial(to.unary, path))
        for name, path in paths.items()
    }


def _own_methods(to: relay.Relay, is_ready: Callable[[], bool]) -> Handlers:
    async def live(_: Message, __: Any) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def ready(_: Message, __: Any) -> Message:
        return pb.ServerReadyResponse(ready=is_ready())

    async def metadata(_: Message, __: Any) -> Message:
        return pb.ServerMetadataResponse(
            name=server_metadata.NAME,
            version=server_metadata.VERSION,
            extensions=server_metadata.EXTENSIONS,
        )

    return {
        "ServerLive": _unary(live, pb.ServerLiveRequest),
        "ServerReady": _unary(ready, pb.ServerReadyRequest),
        "ServerMetadata": _unary(metadata, pb.ServerMetadataRequest),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
            to.stream_infer,
            request_deserializer=relay.decoded,
            response_serializer=pb.ModelStreamInferResponse.SerializeToString,
        ),
    }


def _unary(answer: Callable[..., Any], request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=_bytes
    )


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _reflection(names: tuple[str, ...]) -> Handlers:
    """Both versions of the protocol have the same messages."""
    servicer = reflection.aio.ReflectionServicer(names, pool=_described())
    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }


def _described() -> descriptor_pool.DescriptorPool:
    """Our messages, which live in a pool of their own, with those of the services that came with gRPC."""
    pool = descriptor_pool.DescriptorPool()
    for module in (*OURS, health_pb2, reflection_pb2):
        _add(pool, module.DESCRIPTOR)
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: Any) -> None:
    for needed in file.dependencies:
        _add(pool, needed)
    pool.AddSerializedFile(file.serialized_pb)

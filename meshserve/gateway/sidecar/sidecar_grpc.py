"""The sidecar's gRPC server: what Envoy's bridge to HTTP/1.1 can't carry.

These are streams, compressed messages, health, reflection and the server's metadata.
"""

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
from meshserve.gateway.sidecar import decoding, relay, sidecar_http
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2, model_repository_pb2, modelmesh_pb2

pb = inference_pb2

MODULES = (inference_pb2, model_repository_pb2, modelmesh_pb2)
# Room above the limit of a message: Envoy enforces it on the relayed call, and explains it better.
SLACK_BYTES = 64 * 1024

Handlers = dict[str, "grpc.RpcMethodHandler[Any, Any]"]


class SidecarGrpc:
    """A server that listens. `is_ready` is called anew for every question about readiness."""

    def __init__(
        self, server: grpc.aio.Server, to: relay.Relay, is_ready: Callable[[], bool]
    ) -> None:
        self.health = health.aio.HealthServicer()
        self._server = server
        self.relay = to
        self._is_ready = is_ready

    async def refresh(self) -> None:
        """Publish readiness to the watchers of the health service."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if self._is_ready()
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        # The empty name means the whole server (gRPC's health checking protocol).
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
        interceptors=(decoding.DecodeErrors(),),
        options=(limit, ("grpc.max_send_message_length", -1)),
    )
    listening = SidecarGrpc(server, relay.Relay(snap.listen), is_ready)
    server.add_generic_rpc_handlers(tuple(_services(listening.relay, is_ready)))
    health_pb2_grpc.add_HealthServicer_to_server(listening.health, server)
    server.add_insecure_port(f"unix:{socket_path}")
    await server.start()
    await listening.refresh()
    return listening


def _services(to: relay.Relay, is_ready: Callable[[], bool]) -> list[grpc.GenericRpcHandler]:
    services = [
        service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()
    ]
    handlers = {service.full_name: _relayed(service, to) for service in services}
    handlers[paths.INFERENCE_SERVICE] |= _own_methods(to, is_ready)
    reflections = (reflection.SERVICE_NAME, paths.REFLECTION_SERVICE)
    shown = _reflection((*handlers, health.SERVICE_NAME, *reflections))
    return [
        grpc.method_handlers_generic_handler(service, methods)
        for service, methods in (handlers | dict.fromkeys(reflections, shown)).items()
    ]


def _relayed(service: Any, to: relay.Relay) -> Handlers:
    """Return a handler for each of the service's methods that relays the message as it is.

    Such calls come to the sidecar only if their message is compressed.
    """
    methods = {name: f"/{service.full_name}/{name}" for name in service.methods_by_name}
    return {
        name: grpc.unary_unary_rpc_method_handler(functools.partial(to.unary, path))
        for name, path in methods.items()
    }


def _own_methods(to: relay.Relay, is_ready: Callable[[], bool]) -> Handlers:
    async def live(_: Message, __: Any) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def ready(_: Message, __: Any) -> Message:
        return pb.ServerReadyResponse(ready=is_ready())

    async def metadata(_: Message, __: Any) -> Message:
        return pb.ServerMetadataResponse(**sidecar_http.SERVER_METADATA)

    handlers = {
        paths.SERVER_LIVE: _unary(live, pb.ServerLiveRequest),
        paths.SERVER_READY: _unary(ready, pb.ServerReadyRequest),
        paths.SERVER_METADATA: _unary(metadata, pb.ServerMetadataRequest),
        paths.MODEL_STREAM_INFER: grpc.stream_stream_rpc_method_handler(
            to.stream_infer,
            request_deserializer=relay.decode_element,
            response_serializer=pb.ModelStreamInferResponse.SerializeToString,
        ),
    }
    return {paths.method_name(path): handler for path, handler in handlers.items()}


def _unary(answer: Callable[..., Any], request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _reflection(services: tuple[str, ...]) -> Handlers:
    """Return the handler of both versions of reflection, whose messages are the same."""
    servicer = reflection.aio.ReflectionServicer(services, pool=_descriptors())
    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }


def _descriptors() -> descriptor_pool.DescriptorPool:
    """Return a pool with our messages and those of gRPC's own services.

    Ours live in a pool of their own, because tritonclient defines the same names.
    """
    pool = descriptor_pool.DescriptorPool()
    for module in (*MODULES, health_pb2, reflection_pb2):
        _add(pool, module.DESCRIPTOR)
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: Any) -> None:
    for dependency in file.dependencies:
        _add(pool, dependency)
    pool.AddSerializedFile(file.serialized_pb)

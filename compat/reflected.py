"""A gRPC client that has no protocol files: it asks the server's reflection for them."""

from __future__ import annotations

import functools
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

TIMEOUT_S = 60.0


class ReflectedClient:
    """Calls any method of a server, with messages written as JSON, as grpcurl does."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = descriptor_pool.DescriptorPool(self._database)

    def services(self) -> list[str]:
        """Return the names of the server's services."""
        return list(self._database.get_services())

    def methods(self, service: str) -> list[str]:
        """Return the names of a service's methods."""
        return list(self._pool.FindServiceByName(service).methods_by_name)

    def call(
        self, method: str, request: dict[str, Any], metadata: tuple[tuple[str, str], ...] = ()
    ) -> Any:
        """Return the answer of `package.Service.method` as JSON. Raises grpc.RpcError."""
        service, _, name = method.rpartition(".")
        invoke, request_type = self._invoker(service, name)
        message = json_format.ParseDict(request, request_type())
        answer = invoke(message, timeout=TIMEOUT_S, metadata=metadata)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)

    @functools.cache  # noqa: B019 - one client lives as long as the program
    def _invoker(self, service: str, name: str) -> tuple[Any, Any]:
        method = self._pool.FindServiceByName(service).FindMethodByName(name)
        request_type = message_factory.GetMessageClass(method.input_type)
        answer_type = message_factory.GetMessageClass(method.output_type)
        invoke = self._channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=answer_type.FromString,
        )
        return invoke, request_type

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

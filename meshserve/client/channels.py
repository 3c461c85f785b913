"""Channels to a mesh, for the blocking and the asynchronous client."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import grpc

from meshserve.client import grpc_errors
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb

# Unlimited, because the server limits messages itself, and only its error names the setting.
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
ENDPOINT = "MESHSERVE_ENDPOINT"
ANSWERS: dict[str, Any] = {
    paths.MODEL_INFER: pb.ModelInferResponse,
    paths.MODEL_METADATA: pb.ModelMetadataResponse,
    paths.MODEL_READY: pb.ModelReadyResponse,
    paths.REPOSITORY_INDEX: pb.RepositoryIndexResponse,
}


class ServerTarget(NamedTuple):
    """A server's address as gRPC's `target`, and whether to use TLS."""

    target: str
    is_secure: bool


def parse_endpoint(endpoint: str) -> ServerTarget:
    """Parse `host:port`, `http://host:port` or `https://host[:port]`. Raises ValueError."""
    scheme, separator, rest = endpoint.rpartition("://")
    rest = rest.rstrip("/")
    if (separator and scheme not in {"http", "https"}) or not rest or "/" in rest:
        raise ValueError(
            f"expected host:port or a URL such as http://127.0.0.1:8080, got {endpoint!r}"
            + ("" if endpoint else f"; without one, {ENDPOINT} must be set")
        )
    return ServerTarget(rest, scheme == "https")


def connect(endpoint: str, library: Any) -> Any:
    """Return a channel to a server, made by `grpc` or by `grpc.aio`. Raises ValueError.

    Without an endpoint it is that of the environment, as for commands.
    """
    server = parse_endpoint(endpoint or os.environ.get(ENDPOINT, ""))
    if server.is_secure:
        return library.secure_channel(server.target, grpc.ssl_channel_credentials(), OPTIONS)
    return library.insecure_channel(server.target, OPTIONS)


def metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Return the gRPC metadata for every call: the API key, if any."""
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()


def methods(channel: Any) -> dict[str, Any]:
    """Return the client's methods on a channel, blocking or asynchronous, by path.

    A client should call this once, because gRPC builds each method anew.
    """
    return {
        path: channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        for path, answer in ANSWERS.items()
    }


def check_health(address: str, timeout_s: float) -> None:
    """Return once a gRPC server at `address` (host:port) has answered a health check.

    Raises MeshError if none answers. Source: gRPC's health checking protocol.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            # An empty request means the server as a whole. Any status in the answer will do.
            channel.unary_unary(f"{paths.HEALTH}Check")(b"", timeout=timeout_s)
        except grpc.RpcError as failure:
            raise grpc_errors.raised_by(failure) from failure

"""How a connection is made: what the blocking client and the coroutines share."""

from __future__ import annotations

from typing import Any, NamedTuple

from meshserve.protocol.pb import inference_pb2_grpc as rpc

# The server has a limit of its own and says so better than the channel would.
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class ServerTarget(NamedTuple):
    """Where a mesh listens, as gRPC wants it."""

    target: str
    is_secure: bool


def place(endpoint: str) -> ServerTarget:
    """`host:port`, `http://host:port` or `https://host[:port]`. Raises ValueError for anything else."""
    scheme, separator, rest = endpoint.rpartition("://")
    rest = rest.rstrip("/")
    if (separator and scheme not in {"http", "https"}) or not rest or "/" in rest:
        raise ValueError(
            f"expected host:port or a URL such as http://127.0.0.1:8080, got {endpoint!r}"
        )
    return ServerTarget(rest, scheme == "https")


def metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """What goes with every call."""
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()


def stub(channel: Any) -> Any:
    """The generated methods on a channel, blocking or not."""
    made_for: Any = rpc.GRPCInferenceServiceStub
    return made_for(channel)

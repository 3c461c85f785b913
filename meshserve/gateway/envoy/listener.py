"""Envoy's listener with its filters, and the form of Envoy's own answers. Pure.

Nothing here depends on what changes while a mesh runs: a changed listener would close its
connections. Routes, keys and limits come with the route table.
"""

from __future__ import annotations

import ipaddress
import socket

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import (
    Json,
    access_log,
    anthropic_errors,
    api_keys,
    cors,
    gateway_paths,
    lua_filter,
    matchers,
    native_calls,
    openai_errors,
    routes,
)
from meshserve.protocol import llm_errors

STAT_PREFIX = "ingress"
NAME = "ingress"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
HTTP = (
    "type.googleapis.com/"
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
EARLY_MUTATION = (
    "type.googleapis.com/"
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
)
MUTATION = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
BRIDGE_CONFIG = (
    "type.googleapis.com/envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfig"
)
UUID_IDS = "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
# A client's own internal headers, and those with which it could steer Envoy's retries and timeouts.
INTERNAL: Json = {"remove_on_match": {"key_matcher": {"prefix": "x-mesh-"}}}
STEERING: Json = {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}
# gRPC's own words for it, which Triton's clients look for in the message.
DEADLINE_MESSAGE = "Deadline Exceeded: the deadline passed before the answer was there"
REQUEST_TIMEOUT_S = 600
"""How long a request's last byte may take: 64 MiB at 0.9 Mbit/s. No answer is cut by it: Envoy
stops this clock with the last byte of the request, or the first one of the answer."""

INCOMPLETE_MESSAGE = (
    "Deadline Exceeded: the request did not come whole before its deadline, or within "
    f"{REQUEST_TIMEOUT_S} s"
)
MESSAGES = {
    401: "no valid API key came with the request: "
    "send one as `authorization: Bearer <key>` or `x-api-key: <key>`",
    403: "this API key may not manage the mesh",
    408: INCOMPLETE_MESSAGE,
    504: DEADLINE_MESSAGE,
    404: "nothing is served under %PATH(NQ)%",
    413: "the request is larger than the limit of "
    "%METADATA(VIRTUAL_HOST:meshserve:request_bytes_max)% bytes (gateway.request_bytes_max)",
    503: "nobody can answer this now: %LOCAL_REPLY_BODY%",
}
# RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED; Envoy's own codes would be UNKNOWN and UNAVAILABLE.
GRPC_CODES = {408: "4", 413: "8", 504: "4"}
IS_CALL = matchers.has_header("content-type", {"prefix": "application/grpc"})
# The answer of a script, which has its final form already.
SCRIPT_ANSWER: Json = {
    "filter": matchers.has_header(lua_filter.TURN_HEADER, {"exact": lua_filter.ANSWERED}),
    "body_format_override": {
        "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
        "content_type": "application/json",
    },
}


def listener(snap: snapshots.GatewaySnapshot, layout: gateway_paths.GatewayPaths) -> Json:
    """Return the one listener: HTTP/1.1, HTTP/2 and gRPC on one port, without TLS."""
    host, port = split_address(snap.listen)
    return {
        "@type": LISTENER,
        "name": NAME,
        "address": {"socket_address": {"address": host, "port_value": port}},
        # With it, two gateways on one port would silently share its traffic. The second must fail.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": _http(layout)}]}],
    }


def split_address(listen: str) -> tuple[str, int]:
    """Return host and port of `host:port`, `[v6]:port` or `:port`. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon:
        raise ValueError(f"{listen!r} does not appear to be HOST:PORT")
    host = host.strip("[]") or "0.0.0.0"
    return ("127.0.0.1" if host == "localhost" else str(ipaddress.ip_address(host))), int(port)


def check_is_free(listen: str) -> None:
    """Raise OSError if another program listens on the address.

    Envoy would find out too, but its error stands in its log and does not name the address so.
    """
    host, port = split_address(listen)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            raise OSError(fault.errno, f"can't listen on {listen}: {fault.strerror}") from fault


def _http(layout: gateway_paths.GatewayPaths) -> Json:
    early_mutation = {
        "name": "internal-headers",
        "typed_config": {"@type": EARLY_MUTATION, "mutations": [INTERNAL, STEERING]},
    }
    return {
        "@type": HTTP,
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        # nginx's proxy_pass and `ab` speak it.
        "http_protocol_options": {
            "accept_http_10": True,
            "default_host_for_http_10": "meshserve",
        },
        # A caller's id is kept as it is; every answer has the id by which the logs know it.
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {"typed_config": {"@type": UUID_IDS, "pack_trace_reason": False}},
        "access_log": access_log.loggers(layout.logs),
        "server_name": "meshserve",
        "use_remote_address": True,
        "normalize_path": True,
        # A stream may be idle for as long as a model thinks.
        "stream_idle_timeout": "0s",
        "request_headers_timeout": "30s",
        # Without it a client that sends no body holds its request for ever.
        "request_timeout": f"{REQUEST_TIMEOUT_S}s",
        "early_header_mutation_extensions": [early_mutation],
        "rds": {"route_config_name": routes.TABLE, "config_source": layout.source("rds.json")},
        "local_reply_config": _local_replies(),
        "http_filters": _http_filters(layout.module),
    }


def _http_filters(module: str) -> list[Json]:
    """Return the filters in the order of requests; answers pass them from the last to the first."""
    drop = {"@type": MUTATION, "mutations": {"response_mutations": [INTERNAL]}}
    bridge = {
        "@type": BRIDGE_CONFIG,
        "content_type": "application/grpc",
        "withhold_grpc_frames": True,
    }
    # The bridge passes only answers of gRPC's type on, and replaces their HTTP status by 200: give
    # every answer to a call that type, and keep its status where the script finds it.
    mutations = [
        _set_header("content-type", "application/grpc"),
        _set_header(lua_filter.HTTP_STATUS_HEADER, "%RESP(:STATUS)%"),
    ]
    call_answers = {
        "@type": MUTATION,
        "mutations": {"response_mutations": [{"append": header} for header in mutations]},
    }
    router = {"@type": ROUTER, "suppress_envoy_headers": True}
    return [
        {"name": "internal-headers", "typed_config": drop},
        # Before the keys: a browser asks whether it may send one without one.
        cors.http_filter(),
        api_keys.http_filter(),
        lua_filter.http_filter(),
        *native_calls.http_filters(module),
        {"name": routes.BRIDGE, "disabled": True, "typed_config": bridge},
        {"name": routes.CALL_ANSWERS, "disabled": True, "typed_config": call_answers},
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]


def _local_replies() -> Json:
    """Return the form of Envoy's own answers: plain text with a code for gRPC, JSON otherwise."""
    to_calls = [_text(IS_CALL, "%LOCAL_REPLY_BODY%")]
    to_rest: list[Json] = []
    for status, message in MESSAGES.items():
        reply = _text(_both(IS_CALL, _has_status(status)), message)
        if status in GRPC_CODES:
            reply["headers_to_add"] = [_set_header("grpc-status", GRPC_CODES[status])]
        # Before the one for every call: the first one that matches counts.
        to_calls.insert(-1, reply)
        to_rest.append(_json_reply(_has_status(status), {"error": message}))
    return {
        "mappers": [SCRIPT_ANSWER, *to_calls, *_to_anthropic(), *_to_openai(), *to_rest],
        "body_format": _json({"error": "%LOCAL_REPLY_BODY%"}),
    }


def _to_openai() -> list[Json]:
    is_openai = openai_errors.is_openai_path()
    replies = {
        status: _json_reply(
            _both(is_openai, _has_status(status)), llm_errors.openai(message, status)
        )
        for status, message in MESSAGES.items()
    }
    # OpenAI's clients retry by themselves where an answer says when.
    retry_after = {"key": "retry-after", "value": str(openai_errors.RETRY_AFTER_S)}
    replies[503]["headers_to_add"] = [{"header": retry_after, "append_action": "ADD_IF_ABSENT"}]
    return [*replies.values(), _json_reply(is_openai, llm_errors.openai("%LOCAL_REPLY_BODY%"))]


def _to_anthropic() -> list[Json]:
    is_anthropic = anthropic_errors.is_anthropic_path()
    replies = [
        _json_reply(_both(is_anthropic, _has_status(status)), llm_errors.anthropic(message, status))
        for status, message in MESSAGES.items()
    ]
    return [*replies, _json_reply(is_anthropic, llm_errors.anthropic("%LOCAL_REPLY_BODY%"))]


def _text(condition: Json, text: str) -> Json:
    body = {"text_format_source": {"inline_string": text}}
    return {"filter": condition, "body_format_override": body}


def _json_reply(condition: Json, body: Json) -> Json:
    return {"filter": condition, "body_format_override": _json(body)}


def _json(body: Json) -> Json:
    return {"json_format": body, "content_type": "application/json"}


def _set_header(key: str, value: str) -> Json:
    return {
        "header": {"key": key, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def _both(first: Json, second: Json) -> Json:
    return {"and_filter": {"filters": [first, second]}}


def _has_status(status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"meshserve.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}

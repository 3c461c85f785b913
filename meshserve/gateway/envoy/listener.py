"""How requests come in: Envoy's listener with its filters, and the form of its own answers. Pure.

Nothing in here changes while a mesh runs, or it would close its connections: routes, keys and limits come with the route table.
"""

from __future__ import annotations

import ipaddress
import socket

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import api_keys, gateway_paths, lua_filter, openai_errors, routes

Json = dict[str, object]

STAT_PREFIX = "ingress"
NAME = "ingress"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
EARLY = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
MUTATION = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
BRIDGE_CONFIG = (
    "type.googleapis.com/envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfig"
)
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
INTERNAL: Json = {"remove_on_match": {"key_matcher": {"prefix": "x-mesh-"}}}
STEERING: Json = {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}
OWN_WORDS = {
    401: "no valid API key came with the request: send one as `authorization: Bearer <key>` or `x-api-key: <key>`",
    403: "this API key may not manage the mesh",
    408: "the deadline passed before the answer was there",
    504: "the deadline passed before the answer was there",
    404: "nothing is served under %PATH(NQ)%",
    413: "the request is larger than the limit of %METADATA(VIRTUAL_HOST:meshserve:request_bytes_max)% bytes (gateway.request_bytes_max)",
    503: "nobody can answer this now: %LOCAL_REPLY_BODY%",
}
# Where gRPC has a better code than the one that stands for the HTTP status.
OWN_CODES = {413: "8"}
# Shows the bridge every answer to a gRPC call, whatever its type, and tells the script the HTTP status that the bridge hides.
ANSWERS_OF_CALLS: list[Json] = [
    {
        "append": {
            "header": {"key": "content-type", "value": "application/grpc"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    },
    {
        "append": {
            "header": {"key": lua_filter.HTTP_STATUS_HEADER, "value": "%RESP(:STATUS)%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    },
]
IS_CALL: Json = {
    "header_filter": {
        "header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    }
}

# What a script has given its form already.
FORMED: Json = {
    "filter": {
        "header_filter": {
            "header": {
                "name": lua_filter.TURN_HEADER,
                "string_match": {"exact": lua_filter.ANSWERED},
            }
        }
    },
    "body_format_override": {
        "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
        "content_type": "application/json",
    },
}


def listener(snap: snapshots.GatewaySnapshot, at: gateway_paths.GatewayPaths) -> Json:
    """The one listener: HTTP/1.1, HTTP/2 and gRPC on one port, without TLS."""
    host, port = split_address(snap.listen)
    return {
        "@type": LISTENER,
        "name": NAME,
        "address": {"socket_address": {"address": host, "port_value": port}},
        # Two gateways on one port would share its traffic in silence; the second must fail.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": _http(at)}]}],
    }


def split_address(listen: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port`. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon:
        raise ValueError(f"{listen!r} does not appear to be HOST:PORT")
    host = host.strip("[]") or "0.0.0.0"
    return ("127.0.0.1" if host == "localhost" else str(ipaddress.ip_address(host))), int(port)


def check_is_free(listen: str) -> None:
    """Raises OSError where another program listens on that address: said at once and by name, not by Envoy's log."""
    host, port = split_address(listen)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            raise OSError(fault.errno, f"can't listen on {listen}: {fault.strerror}") from fault


def _http(at: gateway_paths.GatewayPaths) -> Json:
    return {
        "@type": HTTP,
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "generate_request_id": False,
        "server_name": "meshserve",
        "use_remote_address": True,
        "normalize_path": True,
        "stream_idle_timeout": "0s",
        "request_headers_timeout": "30s",
        "early_header_mutation_extensions": [
            {
                "name": "internal-headers",
                "typed_config": {"@type": EARLY, "mutations": [INTERNAL, STEERING]},
            }
        ],
        "rds": {
            "route_config_name": routes.TABLE,
            "config_source": {
                "path_config_source": {"path": at.config("rds.json")},
                "resource_api_version": "V3",
            },
        },
        "local_reply_config": _own_answers(),
        "http_filters": _http_filters(),
    }


def _http_filters() -> list[Json]:
    """In the order of requests; responses pass them from the last to the first."""
    drop = {"@type": MUTATION, "mutations": {"response_mutations": [INTERNAL]}}
    bridge = {
        "@type": BRIDGE_CONFIG,
        "content_type": "application/grpc",
        "withhold_grpc_frames": True,
    }
    answers = {"@type": MUTATION, "mutations": {"response_mutations": ANSWERS_OF_CALLS}}
    return [
        {"name": "internal-headers", "typed_config": drop},
        api_keys.http_filter(),
        lua_filter.http_filter(),
        {"name": routes.BRIDGE, "disabled": True, "typed_config": bridge},
        {"name": routes.ANSWERS, "disabled": True, "typed_config": answers},
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": ROUTER, "suppress_envoy_headers": True},
        },
    ]


def _own_answers() -> Json:
    """What Envoy answers by itself: JSON, and for gRPC plain words with the right code."""
    of_calls = [
        _words(_both(IS_CALL, _has_status(status)), words, OWN_CODES.get(status))
        for status, words in OWN_WORDS.items()
    ]
    of_rest = [
        _formed(_has_status(status), {"error": words}) for status, words in OWN_WORDS.items()
    ]
    of_calls.append(_words(IS_CALL, "%LOCAL_REPLY_BODY%", None))
    return {
        "mappers": [FORMED, *of_calls, *_of_openai(), *of_rest],
        "body_format": _json({"error": "%LOCAL_REPLY_BODY%"}),
    }


def _of_openai() -> list[Json]:
    answers = {
        status: _formed(
            _both(openai_errors.is_openai_path(), _has_status(status)),
            openai_errors.error(words, status),
        )
        for status, words in OWN_WORDS.items()
    }
    # Clients try again by themselves when they are told when.
    retry: Json = {
        "header": {"key": "retry-after", "value": str(openai_errors.RETRY_AFTER_S)},
        "append_action": "ADD_IF_ABSENT",
    }
    answers[503]["headers_to_add"] = [retry]
    return [
        *answers.values(),
        _formed(openai_errors.is_openai_path(), openai_errors.error("%LOCAL_REPLY_BODY%")),
    ]


def _words(when: Json, text: str, grpc_status: str | None) -> Json:
    answer: Json = {
        "filter": when,
        "body_format_override": {"text_format_source": {"inline_string": text}},
    }
    if grpc_status is not None:
        answer["headers_to_add"] = [
            {
                "header": {"key": "grpc-status", "value": grpc_status},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]
    return answer


def _formed(when: Json, body: Json) -> Json:
    return {"filter": when, "body_format_override": _json(body)}


def _json(body: Json) -> Json:
    return {"json_format": body, "content_type": "application/json"}


def _both(first: Json, second: Json) -> Json:
    return {"and_filter": {"filters": [first, second]}}


def _has_status(status: int) -> Json:
    return {
        "status_code_filter": {
            "comparison": {
                "op": "EQ",
                "value": {"default_value": status, "runtime_key": f"meshserve.status_{status}"},
            }
        }
    }

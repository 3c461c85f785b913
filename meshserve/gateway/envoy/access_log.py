"""Envoy's access log: one line for a request, or for some of them. Pure."""

from __future__ import annotations

from meshserve.gateway.envoy import Json, gateway_paths

FILE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
MILLION = 1_000_000

# The path without its query, in which clients may have put secrets.
FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "model": "%REQ(X-MESH-MODEL)%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "took_ms": "%DURATION%",
    "worker": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "client": "%REQ(X-MESH-CLIENT)%",
    "address": "%DOWNSTREAM_REMOTE_ADDRESS%",
}


def loggers(logs: gateway_paths.GatewayLogs) -> list[Json]:
    """Return the listener's access logs: none, or one that takes a share of the requests."""
    if not logs.access:
        return []
    form: Json
    if logs.is_json:
        form = {"json_format": FIELDS}
    else:
        line = " ".join(f"{name}={value}" for name, value in list(FIELDS.items())[1:])
        form = {"text_format_source": {"inline_string": f"{FIELDS['time']} {line}\n"}}
    config: Json = {"@type": FILE, "path": logs.requests, "log_format": form}
    share = {"numerator": round(logs.access * MILLION), "denominator": "MILLION"}
    # By chance, and not by the request's id, which its caller may choose.
    is_taken = {
        "runtime_key": "meshserve.access_log",
        "percent_sampled": share,
        "use_independent_randomness": True,
    }
    return [{"name": "file", "filter": {"runtime_filter": is_taken}, "typed_config": config}]

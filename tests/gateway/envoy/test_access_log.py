from __future__ import annotations

import json
from typing import Any

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import access_log, envoy_config, gateway_paths

SNAPSHOT = snapshots.GatewaySnapshot("127.0.0.1:8080", "n1", {})


def log_format(is_json: bool) -> Any:
    log: Any
    (log,) = access_log.loggers(gateway_paths.GatewayLogs("/logs", 1, is_json=is_json))
    return log["typed_config"]["log_format"]


def test_nothing_is_logged_unless_it_is_asked_for() -> None:
    assert access_log.loggers(gateway_paths.GatewayLogs("/logs")) == []


def test_a_share_of_the_requests_is_logged() -> None:
    log: Any
    (log,) = access_log.loggers(gateway_paths.GatewayLogs("/logs", 0.25))
    share = log["filter"]["runtime_filter"]["percent_sampled"]
    assert share == {"numerator": 250_000, "denominator": "MILLION"}
    assert log["typed_config"]["path"] == "/logs/access.log"


def test_lines_have_the_same_fields_in_both_forms() -> None:
    text, fields = map(log_format, (False, True))
    assert fields == {"json_format": access_log.FIELDS}
    line = text["text_format_source"]["inline_string"]
    assert line.startswith("%START_TIME% request_id=%REQ(X-REQUEST-ID)% method=")
    assert line.endswith("\n")


def test_no_line_has_the_query_of_a_path() -> None:
    assert access_log.FIELDS["path"] == "%PATH(NQ)%"


def test_the_listener_has_the_log() -> None:
    logs = gateway_paths.GatewayLogs("/logs", 1)
    (resource,) = json.loads(envoy_config.files(SNAPSHOT, "/run", "", logs)["lds.json"])[
        "resources"
    ]
    (chain,) = resource["filter_chains"]
    assert chain["filters"][0]["typed_config"]["access_log"] == access_log.loggers(logs)

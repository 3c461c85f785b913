from __future__ import annotations

from typing import Any

import pytest

from bench import h2load

TOTALS = "{total} total, {total} started, {total} done, {good} succeeded, {bad} failed"
REPORT = f"""
finished in 3.02s, {{rate}} req/s, 1.21MB/s
requests: {TOTALS}, 0 errored, 0 timeout
status codes: {{good}} 2xx, 0 3xx, 0 4xx, {{bad}} 5xx
traffic: 1.21KB (1240) total, 640B (640) headers (space savings 0.00%), 300B (300) data
"""
LOG = "1700000000\t200\t1000\n1700000001\t200\t3000\n"


def test_a_report_and_its_log_are_read() -> None:
    report = REPORT.format(rate="9935.48", total=2, good=2, bad=0)
    assert h2load.outcome(report, LOG, 2) == h2load.Outcome(2, 9935.48, 2.0, 2.98, 2.998, 300)


def test_a_request_that_failed_is_an_error() -> None:
    with pytest.raises(h2load.LoadFailed, match="1 of 2 requests"):
        h2load.outcome(REPORT.format(rate="1.00", total=2, good=1, bad=1), LOG, 2)


def test_a_frame_has_its_length_before_the_message() -> None:
    assert h2load.framed(b"abc") == b"\0\0\0\0\x03abc"


def test_a_missing_program_says_how_to_install_it() -> None:
    with pytest.raises(h2load.LoadFailed, match="nghttp2-client"):
        h2load.run("http://127.0.0.1:1/", b"", h2load.Load(1), name="h2load-that-nobody-has")


@pytest.mark.parametrize(
    ("number", "connections", "streams"), [(1, 1, 1), (2, 2, 1), (8, 4, 2), (128, 4, 32)]
)
def test_requests_in_flight_are_spread_over_connections(
    number: Any, connections: Any, streams: Any
) -> None:
    assert h2load.in_flight(number, 1000) == h2load.Load(1000, connections, streams)

"""Put load on a server over HTTP/2 with nghttp2's h2load, which costs little itself."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HOW_TO_INSTALL = (
    "h2load is missing: it is in Debian's and Ubuntu's package nghttp2-client "
    "(apt-get install nghttp2-client), elsewhere in nghttp2"
)

GRPC_HEADERS = {"content-type": "application/grpc", "te": "trailers"}
NO_METADATA: Mapping[str, str] = {}


class LoadFailed(Exception):
    """`h2load` is missing, or not every request was answered with HTTP 200."""


@dataclass(frozen=True)
class Load:
    """`requests` in all over `connections`, with `streams` requests in flight on each."""

    requests: int
    connections: int = 4
    streams: int = 8


@dataclass(frozen=True)
class Outcome:
    """The figures of one run.

    `answer_bytes` is the length of all answers together: an error of gRPC, which is HTTP 200, has
    none.
    """

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    answer_bytes: int


def framed(message: bytes) -> bytes:
    """Return a gRPC frame that is not compressed."""
    return b"\0" + struct.pack(">I", len(message)) + message


def run(
    url: str,
    body: bytes,
    load: Load,
    metadata: Mapping[str, str] = NO_METADATA,
    name: str = "h2load",
) -> Outcome:
    """POST `body` as gRPC. Raises LoadFailed unless every answer is HTTP 200.

    h2load does not look into the answers.
    """
    program = shutil.which(name)
    if program is None:
        raise LoadFailed(HOW_TO_INSTALL)
    with tempfile.TemporaryDirectory() as folder:
        body_file, log_file = Path(folder, "body"), Path(folder, "log")
        body_file.write_bytes(body)
        counts = f"-n {load.requests} -c {load.connections} -m {load.streams} -t 1".split()
        headers = [
            word
            for key, value in {**GRPC_HEADERS, **metadata}.items()
            for word in ("-H", f"{key}: {value}")
        ]
        files = ["-d", str(body_file), f"--log-file={log_file}"]
        command = [program, *counts, *headers, *files, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise LoadFailed(f"h2load ended with {done.returncode}: {done.stderr.strip()}")
        return outcome(done.stdout, log_file.read_text(), load.requests)


def outcome(report: str, log: str, requests: int) -> Outcome:
    """Read h2load's report, and its log. Raises LoadFailed for an answer that is not HTTP 200.

    A line of the log has the start, status and microseconds of one answer.
    """
    succeeded = _number(r"(\d+) succeeded", report)
    if succeeded != requests or _number(r"status codes: (\d+) 2xx", report) != requests:
        statuses = re.search(r"status codes: .*", report)
        said = f" ({statuses.group()})" if statuses else ""
        raise LoadFailed(
            f"{requests - succeeded:.0f} of {requests} requests were not answered "
            f"with HTTP 200{said}"
        )
    took_ms = np.array([int(line.split()[2]) for line in log.splitlines()]) / 1000
    p50_ms, p99_ms, p999_ms = (float(p) for p in np.percentile(took_ms, [50, 99, 99.9]))
    requests_per_s = _number(r"finished in .*?, ([\d.]+) req/s", report)
    return Outcome(
        requests,
        requests_per_s,
        p50_ms,
        p99_ms,
        p999_ms,
        int(_number(r"traffic: .*\((\d+)\) data", report)),
    )


def _number(pattern: str, report: str) -> float:
    match = re.search(pattern, report)
    if match is None:
        raise LoadFailed(f"h2load's report is not as expected:\n{report}")
    return float(match.group(1))


def in_flight(number: int, requests: int) -> Load:
    """Return a load with this many requests in flight, over four connections where possible."""
    connections = min(4, number)
    return Load(requests, connections, number // connections)

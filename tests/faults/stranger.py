"""Another user of the machine, who tries every socket of a mesh without a key.

`python -m tests.faults.stranger` needs root: it becomes user 65534. It reads a JSON object with the
lists `ports` and `paths` from standard input, and writes what it met at each of them as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys

import grpc

USER = 65534
LIMIT_S = 20.0
PAGES = ("/", "/metrics", "/healthz", "/mesh/v1/status", "/v2", "/api/jobs/", "/config_dump")
CALLS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.ActorInfoGcsService/ListNamedActors",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.RayletDriver/KVList",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)


def become_another() -> None:
    # That user may have no access to Python's files: all that is imported later comes first.
    "x".encode("idna")
    grpc.insecure_channel("127.0.0.1:1").close()
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)


def statuses(host: str, port: int) -> dict[str, str]:
    """Return the status line of each page, or why there is none."""
    return {page: _status(host, port, page) for page in PAGES}


def _status(host: str, port: int, page: str) -> str:
    try:
        with socket.create_connection((host, port), LIMIT_S) as connection:
            connection.sendall(f"GET {page} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            line = connection.makefile("rb").readline(100)
    except OSError as error:
        return type(error).__name__
    # What speaks HTTP/2 alone answers with a frame.
    is_http = line.startswith(b"HTTP/1.1 ")
    return line.split()[1].decode() if is_http else "no HTTP/1.1"


def codes(host: str, port: int) -> dict[str, str]:
    """Return the gRPC status of each call."""
    options = [("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"{host}:{port}", options=options) as channel:
        return {call: _code(channel, call) for call in CALLS}


def _code(channel: grpc.Channel, call: str) -> str:
    try:
        channel.unary_unary(call)(b"", timeout=LIMIT_S)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def connected(path: str) -> str:
    """Return how a connection to a Unix socket, or to an abstract one after "@", ends."""
    address = "\0" + path[1:] if path.startswith("@") else path
    outcome = ""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as mine:
            try:
                mine.connect(address)
            except OSError as error:
                outcome = type(error).__name__
            else:
                return "connected"
    return outcome


def main() -> None:
    targets = json.load(sys.stdin)
    become_another()
    met = {
        "pages": {f"{host}:{port}": statuses(host, port) for host, port in targets["ports"]},
        "calls": {f"{host}:{port}": codes(host, port) for host, port in targets["ports"]},
        "paths": {path: connected(path) for path in targets["paths"]},
    }
    json.dump(met, sys.stdout)


if __name__ == "__main__":
    main()

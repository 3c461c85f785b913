"""A fake mesh: the management API over real HTTP, its state in dictionaries."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MIB = 1 << 20


def worker(id_: str, **changes: Any) -> Any:
    return {
        "id": id_,
        "node": "node-1",
        "pid": 4711,
        "state": "ready",
        "restarts": 0,
        "resident": 3,
        "loading": 0,
        "booked_bytes": {"host": 312 * MIB, "gpu": 0},
        "budget_bytes": {"host": 1024 * MIB, "gpu": 0},
        "private_bytes": 400 * MIB,
        "requests": 120_000,
        "failures": 2,
        "hits": 119_900,
        "misses": 100,
        "loads": 100,
        "load_failures": 1,
        "evictions": 40,
        "in_flight": 7,
        **changes,
    }


def model(name: str, **changes: Any) -> Any:
    return {
        "name": name,
        "version": "1",
        "versions": ["1"],
        "newest": "1",
        "state": "ready",
        "reason": "",
        "runtime": "onnx",
        "uri": f"/models/{name}.onnx",
        "pool": "default",
        "pinned": False,
        "origin": "config",
        "worker": "default-0",
        "footprint_bytes": {"host": 90_000, "gpu": 0},
        "requests": 1234,
        "aliases": [],
        **changes,
    }


def node(id_: str, **changes: Any) -> Any:
    return {
        "id": id_,
        "name": id_,
        "address": "127.0.0.1",
        "is_head": False,
        "state": "ready",
        "drain": None,
        **changes,
    }


def llm(name: str, *replicas: Any, **changes: Any) -> Any:
    return {
        "name": name,
        "state": "ready",
        "reason": "",
        "device": "cuda",
        "names": [name],
        "replicas_min": 1,
        "replicas_max": 2,
        "replicas": list(replicas),
        "held": 0,
        "turned_away": 0,
        "starts": 1,
        "start_s": 42.0,
        "wakes": 0,
        "wake_s": None,
        **changes,
    }


def replica(id_: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "node": "node-1",
        "pid": 4712,
        "state": "ready",
        "reason": "",
        "restarts": 0,
        "running": 3,
        "waiting": 1,
        "requests": 50,
        "tokens": 9000,
        "tokens_per_s": 120.5,
        "ttft_p50_s": 0.042,
        "ttft_p95_s": 0.31,
        "kv_used": 0.25,
        "stalled_s": 0.0,
        **changes,
    }


MODELS = (
    model(
        "breast-cancer",
        runtime="xgboost",
        worker="default-1",
        footprint_bytes={"host": 3 * MIB, "gpu": 0},
        requests=420,
    ),
    model(
        "churn[beta]",
        state="failed",
        reason="no such key:\n  s3://bucket/churn",
        runtime="",
        worker="",
        footprint_bytes={"host": 0, "gpu": 0},
        requests=0,
    ),
    model("digits", aliases=["numbers", "mnist"], pinned=True, requests=81_234),
    model(
        "digits-cnn",
        runtime="torch",
        version="2",
        versions=["1", "2"],
        state="loading",
        footprint_bytes={"host": 12 * MIB, "gpu": 0},
    ),
    model(
        "wine",
        runtime="lightgbm",
        state="absent",
        worker="",
        footprint_bytes={"host": 700_000, "gpu": 0},
        requests=12,
    ),
)


class FakeMesh(ThreadingHTTPServer):
    """Records requests in `requests` and authorization headers in `keys`.

    Every answer is `refusal`, a (status, body), if one is set. Each status request adds `growth`
    to the counters.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), FakeMeshHandler)
        self.requests: list[tuple[str, str, Any]] = []
        self.refusal: tuple[int, str] | None = None
        self.keys: list[str | None] = []
        self.growth = 0
        self.log, self.missed = "one", 0
        self.events: list[Any] = []
        self.models = {entry["name"]: dict(entry) for entry in MODELS}
        self.workers = [
            worker("default-0"),
            worker(
                "default-1", state="starting", resident=0, loading=2, restarts=1, hits=0, misses=0
            ),
        ]
        self.state: dict[str, Any] = {
            "version": "0.1.0",
            "state": "ready",
            "endpoint": self.endpoint,
            "pools": [{"name": "default", "device": "cpu", "workers": self.workers}],
            "gateways": [
                {
                    "node": "node-1",
                    "pid": 99,
                    "envoy_pid": 100,
                    "state": "ready",
                    "listen": "127.0.0.1:8080",
                    "restarts": 0,
                    "native": "off",
                }
            ],
            "models": {"registered": 5, "resident": 2, "loading": 1, "failed": 1},
            "controller": {"pid": 77, "restarts": 0},
            "llms": [],
            "nodes": [node("node-1", is_head=True)],
        }

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def status(self) -> dict[str, Any]:
        for entry in self.workers:
            entry["requests"] += self.growth
            entry["hits"] += self.growth
        self.models["digits"]["requests"] += self.growth
        return self.state

    def event_page(self, query: dict[str, str]) -> dict[str, Any]:
        after, since_s = int(query.get("after", 0)), float(query.get("since_s", 0))
        return {
            "log": self.log,
            "known_since_s": self.events[0]["at_s"] - 1,
            "missed": self.missed,
            "events": [
                event
                for event in self.events
                if event["number"] > after and event["at_s"] >= since_s
            ],
            "next": self.events[-1]["number"],
        }

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        names = [
            name
            for name in sorted(self.models)
            if name.startswith(query.get("prefix", "")) and name > query.get("after", "")
        ]
        models = [
            self.models[name]
            for name in names
            if self.models[name]["state"] == query.get("state", self.models[name]["state"])
        ]
        limit = int(query.get("limit", len(models)))
        return {
            "models": models[:limit],
            "next": models[limit - 1]["name"] if len(models) > limit else None,
        }


class FakeMeshHandler(BaseHTTPRequestHandler):
    server: FakeMesh

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer()

    do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815 - the library's names

    def answer(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.requests.append((self.command, self.path, body))
        self.server.keys.append(self.headers.get("authorization"))
        status, text = self.server.refusal or self.reply(body)
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def reply(self, body: Any) -> tuple[int, str]:
        split = urlsplit(self.path)
        parts = [unquote(part) for part in split.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        match self.command, *parts:
            case "GET", "mesh", "v1", "status":
                return 200, json.dumps(self.server.status())
            case "GET", "mesh", "v1", "models":
                return 200, json.dumps(self.server.page(query))
            case "GET", "mesh", "v1", "events":
                return 200, json.dumps(self.server.event_page(query))
            case "POST" | "DELETE", "mesh", "v1", "nodes", name, "drain":
                return 200, json.dumps({"changes": [f"node {name}: {self.command}"]})
            case _, "mesh", "v1", "models", name, *verb:
                return self.of_model(name, verb, body)
            case "GET", "v2", "models", name:
                tensors = {
                    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
                    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
                }
                return 200, json.dumps(
                    {"name": name, "versions": ["1"], "platform": "onnx", **tensors}
                )
            case "POST", "v2", "models", name, "infer":
                data = body["inputs"][0]["data"]
                output = {
                    "name": "y",
                    "datatype": "FP32",
                    "shape": [1, len(data)],
                    "data": [2 * value for value in data],
                }
                return 200, json.dumps(
                    {"model_name": name, "model_version": "1", "outputs": [output]}
                )
        return 404, json.dumps({"error": f"no such path {self.path}"})

    def of_model(self, name: str, verb: list[str], body: Any) -> tuple[int, str]:
        models = self.server.models
        if self.command == "PUT":
            models[name] = model(name) | body
        if name not in models:
            return 404, json.dumps({"error": f"model {name!r} is not registered"})
        if self.command == "DELETE":
            return 200, json.dumps(models.pop(name))
        if verb in (["pin"], ["unpin"]):
            models[name]["pinned"] = verb == ["pin"]
        return 200, json.dumps(models[name])


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[FakeMesh]:
    """A fake mesh that answers while the context lasts."""
    fake = FakeMesh(port)
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        fake.shutdown()
        thread.join()
        fake.server_close()

"""A small API server of Kubernetes: as much as `kubectl apply` and `kubectl diff` ask of one.

It answers from the schemas of `tests/kubernetes/schemas.py`, and keeps objects in memory.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from meshserve.kubernetes import merge_patch
from tests.kubernetes import schemas

Json = dict[str, Any]

# By API version: kind and plural of each kind that we print.
KINDS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Service": "services",
        "PersistentVolumeClaim": "persistentvolumeclaims",
    },
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors"},
    "ray.io/v1": {"RayCluster": "rayclusters", "RayService": "rayservices"},
}
UNCHECKED = {"PodMonitor"}
"""Kinds of other operators, whose schemas are not here."""


class ApiServer(http.server.ThreadingHTTPServer):
    """Objects by path, and the paths that were written."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, Json] = {}
        self.written: list[tuple[str, str]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.rstrip("/")
        answer = _discovery(path) or self.server.objects.get(path)
        if answer is None:
            return self._answer(404, _status(404, "NotFound", f"nothing is at {path}"))
        return self._answer(200, answer)

    def do_POST(self) -> None:
        manifest = self._body()
        path = f"{urlsplit(self.path).path}/{manifest['metadata']['name']}"
        self._write(path, manifest, 201)

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        changed = merge_patch.merged(self.server.objects.get(path, {}), self._body())
        self._write(path, changed, 200)

    def _write(self, path: str, manifest: Json, code: int) -> None:
        faults = [] if manifest["kind"] in UNCHECKED else schemas.faults(_sent(manifest))
        if faults:
            return self._answer(422, _status(422, "Invalid", "; ".join(faults)))
        is_dry = "dryRun" in parse_qs(urlsplit(self.path).query)
        stored = {**manifest, "metadata": {**manifest["metadata"], "uid": "1"}}
        self.server.written.append(("dry" if is_dry else "real", path))
        if not is_dry:
            self.server.objects[path] = stored
        return self._answer(code, stored)

    def _body(self) -> Json:
        body: Json = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return body

    def _answer(self, code: int, content: Json) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


def _sent(manifest: Json) -> Json:
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "uid"}
    return {**manifest, "metadata": metadata}


def _status(code: int, reason: str, message: str) -> Json:
    status = {"apiVersion": "v1", "kind": "Status", "status": "Failure"}
    return {**status, "code": code, "reason": reason, "message": message}


def _discovery(path: str) -> Json | None:
    groups = {version.partition("/")[0] for version in KINDS if "/" in version}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        listed = [
            {
                "name": group,
                "versions": [{"groupVersion": f"{group}/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": f"{group}/v1", "version": "v1"},
            }
            for group in sorted(groups)
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    return _resources(version) if version in KINDS and path.startswith("/api") else None


def _resources(version: str) -> Json:
    verbs = ["create", "get", "list", "patch", "update", "delete"]
    listed = [
        {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
        for kind, plural in KINDS[version].items()
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": listed,
    }


@contextmanager
def running() -> Iterator[ApiServer]:
    """An API server for as long as the context."""
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

"""The client of the management API `/mesh/v1`, for the command line and for programs.

This module must not import gRPC, which takes longer than most commands as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

from meshserve import errors
from meshserve.protocol import mesh_status, paths

API_KEY = "MESHSERVE_API_KEY"
TIMEOUT_S = 30.0
# Longer than the mesh's own timeouts for loads and changes, whose errors name the limit exceeded.
LOAD_TIMEOUT_S = 3600.0
APPLY_TIMEOUT_S = 120.0
HEALTH_TIMEOUT_S = 5.0
REASON_CHARS_MAX = 300

Query = Mapping[str, str | float | None]
"""A query string; keys whose value is None are left out."""


class AdminClient:
    """A client of the mesh at `endpoint`, a URL. Close it, or use it as a context manager.

    The key comes from the environment variable MESHSERVE_API_KEY where `api_key` is empty.

    Every method but `is_answering` raises DeadlineExceeded or Unavailable if no mesh answers, and
    MeshError, with one line for a user, if the mesh refuses; `apply` also raises ConfigInvalid.
    """

    def __init__(self, endpoint: str, api_key: str = "", owner_key: str = "") -> None:
        """`owner_key` is the secret in the mesh's state directory, for changes by its owner."""
        self.endpoint = endpoint
        key = api_key or os.environ.get(API_KEY, "")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if owner_key:
            headers[paths.OWNER_HEADER] = owner_key
        self._http = httpx.Client(base_url=endpoint, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_answering(self) -> bool:
        """Return whether a mesh answers at the endpoint, ready or not. Raises nothing."""
        try:
            answer = self._http.get(paths.HEALTHZ, timeout=HEALTH_TIMEOUT_S)
        except httpx.TransportError:
            return False
        # A mesh without a ready worker answers 503; a 404 comes from another program.
        return not answer.is_client_error

    def status(self, timeout_s: float = TIMEOUT_S) -> mesh_status.MeshStatus:
        """Return the state of pools, workers, gateways and LLMs, and the number of models."""
        path = paths.MESH_V1 + "status"
        return cast("mesh_status.MeshStatus", self.request("GET", path, timeout_s=timeout_s))

    def models(self, **query: str | int | None) -> mesh_status.ModelPage:
        """Return a page of models, as chosen by `prefix`, `state`, `sort`, `limit` and `after`."""
        page = self.request("GET", paths.MESH_V1 + "models", query=query)
        return cast("mesh_status.ModelPage", page)

    def events(self, **query: str | float | None) -> mesh_status.EventPage:
        """Return what happened, as chosen by `about`, `kind`, `since_s`, `after` and `limit`."""
        page = self.request("GET", paths.MESH_V1 + "events", query=query)
        return cast("mesh_status.EventPage", page)

    def model(self, name: str, version: str | None = None) -> mesh_status.ModelStatus:
        """Return one model, by default its newest version."""
        return self._of_model("GET", name, version)

    def register(self, name: str, entry: Mapping[str, Any]) -> mesh_status.ModelStatus:
        """Register or replace a model; `entry` is an entry of the config's `models:` as a dict."""
        # A pinned model is loaded before the answer.
        return self._of_model("PUT", name, None, body=entry, timeout_s=LOAD_TIMEOUT_S)

    def remove(self, name: str, version: str | None = None) -> mesh_status.ModelStatus:
        """Remove one version of a model, or all; return the model as it was."""
        return self._of_model("DELETE", name, version)

    def load(self, name: str, version: str | None = None) -> mesh_status.ModelStatus:
        """Load a model; return its status once the load has ended."""
        return self._order(name, "load", version)

    def unload(self, name: str, version: str | None = None) -> mesh_status.ModelStatus:
        """Free a model's memory; the next request loads it again."""
        return self._order(name, "unload", version)

    def release(self, name: str, version: str | None = None) -> mesh_status.ModelStatus:
        """End a model's quarantine; the next request runs it in a process of its own."""
        return self._order(name, "release", version)

    def pin(self, name: str, version: str | None = None) -> mesh_status.ModelStatus:
        """Load a model and keep it in memory."""
        return self._order(name, "pin", version)

    def unpin(self, name: str, version: str | None = None) -> mesh_status.ModelStatus:
        """Let a pinned model be evicted again."""
        return self._order(name, "unpin", version)

    def apply(self, document: Mapping[str, Any]) -> list[str]:
        """Apply a configuration to the mesh; return the changes, one line for each.

        Raises ConfigInvalid, with a line for each mistake.
        """
        answer = self._send("POST", paths.MESH_V1 + "apply", None, document, APPLY_TIMEOUT_S)
        if answer.status_code == httpx.codes.BAD_REQUEST:
            # Not joined into one line: each line is a mistake.
            raise errors.ConfigInvalid(_reason(answer, self.endpoint))
        return list(_object(answer, self.endpoint)["changes"])

    def drain(self) -> None:
        """Make the mesh answer what it has accepted, and end; return before it has ended."""
        self.request("POST", paths.MESH_V1 + "drain", timeout_s=APPLY_TIMEOUT_S)

    def drain_node(self, node: str, timeout_s: float, *, is_ended: bool = False) -> list[str]:
        """Have the node with this name, address or id drained; return in words what that changes.

        Models may take `timeout_s` to be loaded elsewhere. With `is_ended` its Ray ends afterwards.
        """
        body = {"timeout_s": timeout_s, "end": is_ended}
        return list(self.request("POST", _drain_path(node), body=body)["changes"])

    def end_node_drain(self, node: str) -> list[str]:
        """Have a node used again that was to be drained; return in words what that changes."""
        return list(self.request("DELETE", _drain_path(node))["changes"])

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        """Send one request, below `/mesh/v1` or not, and return the JSON object of its answer."""
        return _object(self._send(method, path, query, body, timeout_s), self.endpoint)

    def _order(self, name: str, verb: str, version: str | None) -> mesh_status.ModelStatus:
        return self._of_model("POST", name, version, verb=f"/{verb}", timeout_s=LOAD_TIMEOUT_S)

    def _of_model(
        self, method: str, name: str, version: str | None, *, verb: str = "", **more: Any
    ) -> mesh_status.ModelStatus:
        # A name may hold a slash, which would make another path of it.
        path = f"{paths.MESH_V1}models/{quote(name, safe='')}{verb}"
        answer = self.request(method, path, query={"version": version}, **more)
        return cast("mesh_status.ModelStatus", answer)

    def _send(
        self, method: str, path: str, query: Query | None, body: object, timeout_s: float
    ) -> httpx.Response:
        params = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            return self._http.request(method, path, params=params, json=body, timeout=timeout_s)
        # Caught first, because TimeoutException is a subclass of TransportError.
        except httpx.TimeoutException:
            raise errors.DeadlineExceeded(
                f"the mesh at {self.endpoint} did not answer within {timeout_s:g} s"
            ) from None
        except httpx.TransportError as failure:
            raise errors.Unavailable(
                f"no mesh answers at {self.endpoint} ({failure}); "
                "start one with: meshserve up CONFIG"
            ) from None


def _object(answer: httpx.Response, endpoint: str) -> dict[str, Any]:
    if answer.is_error:
        raise errors.MeshError(" ".join(_reason(answer, endpoint).split()))
    # Another program may listen at the endpoint, and answer with anything.
    try:
        content: dict[str, Any] = answer.json() if answer.content else {}
    except ValueError:
        raise errors.Unavailable(
            f"what answers at {endpoint} is no mesh: {answer.text[:REASON_CHARS_MAX]}"
        ) from None
    return content


def _reason(answer: httpx.Response, endpoint: str) -> str:
    try:
        reason = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        status = f"{answer.status_code} {answer.reason_phrase}"
        reason = f"the mesh at {endpoint} answered {status}: {answer.text[:REASON_CHARS_MAX]}"
    is_refused = answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    return reason + (f" (the key is read from {API_KEY})" if is_refused else "")


def _drain_path(node: str) -> str:
    return f"{paths.NODES}/{quote(node, safe='')}/drain"

"""A running mesh, spoken to over its management API."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from meshserve import config, errors

API_KEY = "MESHSERVE_API_KEY"
TIMEOUT_S = 30.0
# a load answers when it is over, and its own limit is the mesh's
LOAD_TIMEOUT_S = 3600.0
REASON_MAX = 300

Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        envvar="MESHSERVE_ENDPOINT",
        metavar="URL",
        help="The mesh to speak to. Default: the one started from this machine.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the mesh's JSON as it is.")]


class MeshConnection:
    """The management API of the mesh at `endpoint`. Every method raises MeshError with one line for a user."""

    def __init__(self, endpoint: str, http: httpx.Client) -> None:
        self.endpoint = endpoint
        self._http = http

    def status(self) -> httpx.Response:
        """How the mesh is: pools, workers, gateways, number of models."""
        return self.ask("GET", "/mesh/v1/status")

    def models(self, **query: str | int | None) -> httpx.Response:
        """A page of models; `prefix`, `state`, `limit`, `after` choose it."""
        return self.ask("GET", "/mesh/v1/models", query=query)

    def model(
        self, method: str, name: str, version: str | None, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        """Get, put or delete one model."""
        return self.ask(
            method, f"/mesh/v1/models/{quote(name, safe='')}", query={"version": version}, body=body
        )

    def order(self, name: str, verb: str, version: str | None) -> httpx.Response:
        """Have a model loaded, unloaded, pinned or unpinned. A load answers when it is over."""
        path = f"/mesh/v1/models/{quote(name, safe='')}/{verb}"
        return self.ask("POST", path, query={"version": version}, timeout_s=LOAD_TIMEOUT_S)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: object = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx.Response:
        """One request; the answer is a good one."""
        given = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, path, params=given, json=body, timeout=timeout_s)
        except httpx.TimeoutException:
            raise errors.DeadlineExceeded(
                f"the mesh at {self.endpoint} did not answer within {timeout_s:g} s"
            ) from None
        except httpx.TransportError as error:
            raise errors.Unavailable(
                f"no mesh answers at {self.endpoint} ({error}); start one with: meshserve up CONFIG"
            ) from None
        if answer.is_error:
            raise errors.MeshError(_reason(answer, self.endpoint))
        if answer.content and not _is_json(answer):
            raise errors.Unavailable(
                f"what answers at {self.endpoint} is no mesh: {answer.text[:REASON_MAX]}"
            )
        return answer


@contextlib.contextmanager
def connect(endpoint: str | None) -> Iterator[MeshConnection]:
    """The mesh at `endpoint`, or else the one that was started from this machine. Raises MeshError where there is none."""
    url = normal(endpoint) if endpoint else _started_here()
    key = os.environ.get(API_KEY)
    with httpx.Client(
        base_url=url, headers={"authorization": f"Bearer {key}"} if key else {}
    ) as http:
        yield MeshConnection(url, http)


def normal(endpoint: str) -> str:
    """`endpoint` as a URL: `http://` is added where no scheme is given. Raises ConfigInvalid where it can be none."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise errors.ConfigInvalid(f"--endpoint {endpoint}: {str(error).lower()}") from None
    if (
        parsed.scheme not in ("http", "https")
        or not parsed.host
        or parsed.path.strip("/")
        or parsed.query
    ):
        raise errors.ConfigInvalid(f"--endpoint {endpoint}: expected HOST:PORT or http://HOST:PORT")
    return url.rstrip("/")


def _started_here() -> str:
    path = config.home() / "mesh.json"
    try:
        return normal(str(json.loads(path.read_text(encoding="utf-8"))["endpoint"]))
    except FileNotFoundError:
        hint = "start one with: meshserve up CONFIG, or name one with --endpoint"
        raise errors.Unavailable(
            f"no mesh was started from this machine ({path} is not there); {hint}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.Unavailable(
            f"{path} can't be read ({error!r}); name the mesh with --endpoint"
        ) from None


def _is_json(answer: httpx.Response) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True


def _reason(answer: httpx.Response, endpoint: str) -> str:
    try:
        reason = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        reason = f"the mesh at {endpoint} answered {answer.status_code} {answer.reason_phrase}: {answer.text[:REASON_MAX]}"
    hint = (
        f" (the key is read from {API_KEY})"
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
        else ""
    )
    return " ".join(str(reason).split()) + hint

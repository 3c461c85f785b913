"""OpenAI's list of models: every LLM by all its names. And the form of OpenAI's errors.

KServe's V1 has its list of small models at the same path, and with another key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshserve.control.api import rest_routes
from meshserve.core.mesh import mesh_view
from meshserve.protocol import paths

OWNER = "meshserve"


class ErrorKind(NamedTuple):
    """The fields of an OpenAI error except its message."""

    type: str
    param: str | None
    code: str


NOT_FOUND = ErrorKind("invalid_request_error", "model", "model_not_found")


def refusal(status: int, message: str, kind: ErrorKind) -> Response:
    """Return an error in the form that OpenAI's clients read."""
    return rest_routes.json_response({"error": {"message": message, **kind._asdict()}}, status)


class ModelList:
    """Answers `/v1/models` and `/v1/models/NAME`, also below `/openai`."""

    def __init__(self, view: Callable[[], mesh_view.MeshView]) -> None:
        self._view = view
        self._created_s = int(time.time())

    def routes(self) -> list[Route]:
        """Return the routes of the list and of single models."""
        return [
            route
            for path in (paths.OPENAI_MODELS, paths.PREFIXED_OPENAI_MODELS)
            for route in (
                rest_routes.route("GET", path, self._list),
                rest_routes.route("HEAD", path, self._list),
                # Names such as `org/model` are often sent with a plain slash.
                rest_routes.route("GET", f"{path}/{{name:names}}", self._show),
            )
        ] + [rest_routes.route("GET", paths.V2_MODEL_LIST, self._list_small)]

    async def _list(self, request: Request) -> object:
        entries = list(self._entries())
        if request.url.path.startswith(paths.OPENAI_PREFIX):
            return {"object": "list", "data": entries}
        return {"object": "list", "data": entries, "models": self._small_models()}

    async def _list_small(self, _: Request) -> object:
        return {"models": self._small_models()}

    def _small_models(self) -> list[str]:
        return sorted({declared.spec.id.name for declared in self._view().models})

    async def _show(self, request: Request) -> object:
        name = request.path_params["name"]
        for entry in self._entries():
            if entry["id"] == name:
                return entry
        return refusal(404, f"The model `{name}` does not exist.", NOT_FOUND)

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Yield an entry for each name that clients may call, aliases and adapters too."""
        for llm in self._view().llms:
            spec = llm.spec
            tokens = _max_model_len(llm)
            for name in (spec.name, *spec.aliases):
                yield self._entry(name, None, tokens) | {"root": spec.name}
            for adapter in spec.adapters:
                yield self._entry(adapter.name, spec.name, tokens) | {"root": adapter.name}

    def _entry(self, name: str, parent: str | None, max_model_len: int | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created_s,
            "owned_by": OWNER,
            "parent": parent,
            "max_model_len": max_model_len,
        }


def _max_model_len(llm: mesh_view.LlmView) -> int | None:
    """Return the most tokens of a request and its answer; None before an engine has said so."""
    reported = max(
        (replica.report.max_model_len for replica in llm.replicas if replica.report), default=0
    )
    declared = llm.spec.engine.get("max_model_len")
    return reported or (declared if isinstance(declared, int) else None)

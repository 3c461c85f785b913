"""OpenAI's list of models (every LLM and its adapters), and the form of OpenAI's errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshserve.control.api import rest_routes
from meshserve.core.mesh import mesh_view
from meshserve.core.values import llm_spec
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
                # Names such as `org/model` are often sent with a plain slash.
                rest_routes.route("GET", f"{path}/{{name:names}}", self._show),
            )
        ]

    async def _list(self, _: Request) -> object:
        return {"object": "list", "data": list(self._entries())}

    async def _show(self, request: Request) -> object:
        name = request.path_params["name"]
        for spec in self._llms():
            if name in spec.names:
                is_adapter = any(adapter.name == name for adapter in spec.adapters)
                return self._entry(name, spec.name if is_adapter else None)
        return refusal(404, f"The model `{name}` does not exist.", NOT_FOUND)

    def _llms(self) -> tuple[llm_spec.LlmSpec, ...]:
        return self._view().config.llms

    def _entries(self) -> Iterator[dict[str, Any]]:
        for spec in self._llms():
            yield self._entry(spec.name, None)
            yield from (self._entry(adapter.name, spec.name) for adapter in spec.adapters)

    def _entry(self, name: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created_s,
            "owned_by": OWNER,
            "parent": parent,
        }

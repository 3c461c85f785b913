"""OpenAI's shapes, as far as the control plane speaks them: which models there are, and errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from meshserve.control.api import http_messages
from meshserve.core.mesh import mesh_view
from meshserve.core.values import llm_spec
from meshserve.protocol import error_responses, paths

OWNER = "meshserve"


class Kind(NamedTuple):
    """What an error is, in OpenAI's words."""

    type: str
    param: str | None
    code: str


NOT_FOUND = Kind("invalid_request_error", "model", "model_not_found")


def refusal(status: int, message: str, kind: Kind) -> http_messages.HttpAnswer:
    """An error as OpenAI's clients know it."""
    body = orjson.dumps({"error": {"message": message, **kind._asdict()}})
    return http_messages.HttpAnswer(body, status, (error_responses.JSON_TYPE,))


class ModelList:
    """Answers `/v1/models` and `/v1/models/NAME`, below `/openai` too: LLMs and their adapters."""

    def __init__(self, view: Callable[[], mesh_view.MeshView]) -> None:
        self._view = view
        self._created_s = int(time.time())

    async def answer(self, request: http_messages.HttpRequest) -> http_messages.HttpAnswer | None:
        """The answer; nothing where there is no such path or method."""
        rest = (
            request.path.removeprefix(paths.OPENAI_PREFIX)
            .removeprefix(paths.OPENAI_MODELS)
            .rstrip("/")
        )
        if request.method != "GET" or (rest and not rest.startswith("/")):
            return None
        if not rest:
            return http_messages.json_answer(
                {"object": "list", "data": [self._entry(*each) for each in self._listed()]}
            )
        name = unquote(rest.removeprefix("/"))
        found = next((entry for spec in self._llms() if (entry := self._named(spec, name))), None)
        return (
            http_messages.json_answer(found)
            if found
            else refusal(404, f"The model `{name}` does not exist.", NOT_FOUND)
        )

    def _llms(self) -> tuple[llm_spec.LlmSpec, ...]:
        return self._view().config.llms

    def _listed(self) -> Iterator[tuple[str, str | None]]:
        for spec in self._llms():
            yield spec.name, None
            yield from ((adapter.name, spec.name) for adapter in spec.adapters)

    def _named(self, spec: llm_spec.LlmSpec, name: str) -> dict[str, Any] | None:
        if name in (spec.name, *spec.aliases):
            return self._entry(name, None)
        return self._entry(name, spec.name) if name in spec.names else None

    def _entry(self, name: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created_s,
            "owned_by": OWNER,
            "parent": parent,
        }

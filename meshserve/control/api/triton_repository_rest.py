"""`/v2/repository`: the repository extension over REST, and the statistics of all models."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote

from meshserve import errors
from meshserve.control import admin_service
from meshserve.control.api import http_messages, triton_repository
from meshserve.protocol import model_description, paths


class TritonRepositoryRest:
    """Answers requests below `/v2/repository/`, and `/v2/models/stats`."""

    def __init__(self, of: admin_service.AdminService, files_dir: str) -> None:
        self._repository = triton_repository.TritonRepository(of, files_dir)

    async def answer(self, request: http_messages.HttpRequest) -> http_messages.HttpAnswer | None:
        """The answer; nothing where there is no such path or method. Raises MeshError."""
        parts = [
            unquote(part)
            for part in request.path.removeprefix(paths.V2_REPOSITORY).rstrip("/").split("/")
        ]
        if request.method != "POST":
            return None
        match parts:
            case ["index"] | [_, "index"]:
                only_ready = request.json().get("ready") is True
                return http_messages.json_answer(
                    model_description.index_json(self._repository.index(only_ready=only_ready))
                )
            case ["models", name, "load"] | [_, "models", name, "load"]:
                await self._repository.load(name, parameters(request))
                return http_messages.json_answer({})
            case ["models", name, "unload"] | [_, "models", name, "unload"]:
                await self._repository.unload(name)
                return http_messages.json_answer({})
        return None

    async def statistics(
        self, request: http_messages.HttpRequest
    ) -> http_messages.HttpAnswer | None:
        """The statistics of all models."""
        if request.method != "GET" or request.path != paths.V2_STATISTICS:
            return None
        return http_messages.json_answer(
            model_description.statistics_json(await self._repository.statistics())
        )


def parameters(request: http_messages.HttpRequest) -> dict[str, str | bytes]:
    """A load's parameters; files are base64 in JSON. Raises InvalidRequest."""
    given = request.json().get("parameters", {})
    if not isinstance(given, dict) or not all(isinstance(found, str) for found in given.values()):
        raise errors.InvalidRequest("`parameters` must be an object of strings")
    return {
        key: _file(key, found) if key.startswith(triton_repository.FILE) else found
        for key, found in given.items()
    }


def _file(key: str, found: str) -> bytes:
    try:
        return base64.b64decode(found, validate=True)
    except binascii.Error:
        raise errors.InvalidRequest(f"parameter {key!r} is not base64") from None

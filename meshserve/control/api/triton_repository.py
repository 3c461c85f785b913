"""Triton's repository extension: list, load and unload models, and take uploaded ones.

A registered model that is not in memory counts as ready, because a request brings it there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from meshserve import errors
from meshserve.control import admin_service, mesh_json
from meshserve.control.api import rest_routes, triton_load_config, uploads
from meshserve.core.values import catalog, model_stats
from meshserve.protocol import model_description, paths

FILE = "file:"
CONFIG = "config"
COLD = "not in memory: the next request loads it"
UNLOADED = "unloaded"
Parameters = Mapping[str, str | bytes]


class TritonRepository:
    """The extension's methods, whichever protocol they are called by."""

    def __init__(self, service: admin_service.AdminService, files_dir: str) -> None:
        self._service = service
        self._files_dir = files_dir

    def index(self, *, only_ready: bool) -> Iterator[model_description.IndexEntry]:
        """Yield every registered version by name, or only those that are ready."""
        view = self._service.view()
        for declared in self._declared():
            id_ = declared.spec.id
            _, copy = mesh_json.foremost(id_, view.reported_copies(id_))
            state, reason = triton_state(copy.state, copy.reason)
            if declared.spec.unloaded:
                state, reason = "UNAVAILABLE", UNLOADED
            if state == "READY" or not only_ready:
                yield model_description.IndexEntry(id_, state, reason)

    def _declared(self) -> list[catalog.ModelDeclared]:
        return sorted(self._service.view().models, key=lambda declared: declared.spec.id)

    async def load(self, name: str, parameters: Parameters) -> None:
        """Load a model; register it first if files or a configuration come with the request.

        Raises InvalidRequest for unknown or malformed parameters, or the reason why the model
        cannot be loaded.
        """
        if not name:
            raise errors.InvalidRequest("a load must name a model")
        unknown = [key for key in parameters if key != CONFIG and not key.startswith(FILE)]
        if unknown:
            raise errors.InvalidRequest(
                f"unknown parameter {unknown[0]!r}; there are: config, file:<version>/<path>"
            )
        if parameters:
            await self._register(name, parameters)
        await self._service.load(name)

    async def _register(self, name: str, parameters: Parameters) -> None:
        config = parameters.get(CONFIG)
        entry, description = {}, ""
        if config is not None:
            entry = triton_load_config.entry_from(as_text(config))
            description = triton_load_config.description_from(as_text(config))
        files = {
            key.removeprefix(FILE): as_bytes(content)
            for key, content in parameters.items()
            if key.startswith(FILE)
        }
        if not files:
            await self._register_changed(name, entry, description)
            return
        if config is None:
            raise errors.InvalidRequest("files need a `config` parameter beside them")
        folders = await asyncio.to_thread(uploads.keep, self._files_dir, files)
        for version, folder in folders.items():
            spec = self._service.spec(
                {"name": name, "version": version, "uri": str(folder), **entry}
            )
            described = dataclasses.replace(spec, description=description)
            await self._service.register(described, is_replacing=True)

    async def _register_changed(self, name: str, entry: dict[str, Any], description: str) -> None:
        """Register a model anew with some keys changed."""
        spec = self._service.declared(name).spec
        current = {
            "name": spec.id.name,
            "version": spec.id.version,
            "uri": spec.uri,
            "runtime": spec.runtime,
            "pool": spec.pool,
            "pinned": spec.pinned,
            "trust": spec.trust,
            "checksum": spec.checksum,
            "load_timeout_s": spec.load_timeout_s,
            "isolate": spec.isolate or None,
        }
        changed = self._service.spec({**current, **entry})
        described = dataclasses.replace(changed, description=description)
        await self._service.register(described, is_replacing=True)

    async def unload(self, name: str) -> None:
        """Evict every copy of every version; until a load, requests for the model are not found.

        Raises InvalidRequest without a name, ModelNotFound, or Conflict for a pinned model.
        """
        if not name:
            raise errors.InvalidRequest("an unload must name a model")
        # Triton unloads a model by its name alone.
        await self._service.set_unloaded(name, unloaded=True)
        for version in self._service.view().models.versions(name) or ("",):
            await self._service.unload(name, version)

    async def statistics(self) -> list[model_description.ModelStatistics]:
        """Return the statistics of every registered model, summed over the workers."""
        stats = await self._service.stats()
        view = self._service.view()
        return [
            model_description.ModelStatistics(
                declared.spec.id,
                stats.get(declared.spec.id, model_stats.ModelStats()),
                mesh_json.footprint(view, declared),
            )
            for declared in self._declared()
        ]


def triton_state(state: str, reason: str) -> tuple[str, str]:
    """Return Triton's word for the state of a copy, and a reason to show."""
    match state:
        case "failed":
            return "UNAVAILABLE", reason
        case "loading" | "fetching":
            return "LOADING", ""
        case "ready" | "parked":
            return "READY", ""
    return "READY", COLD


def as_text(value: str | bytes) -> str:
    """Return a parameter that must be text. Raises InvalidRequest."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise errors.InvalidRequest("`config` must be text") from None


def as_bytes(value: str | bytes) -> bytes:
    """Return a parameter that must be bytes. Raises InvalidRequest."""
    if isinstance(value, str):
        raise errors.InvalidRequest("a file must be given as bytes")
    return value


# REST


def routes(repository: TritonRepository) -> list[Route]:
    """Return the routes below `/v2/repository`, and of the statistics of all models."""

    async def index(request: Request) -> object:
        only_ready = (await rest_routes.read_json(request)).get("ready") is True
        entries = repository.index(only_ready=only_ready)
        return model_description.index_json(entries)

    async def load(request: Request) -> object:
        await repository.load(
            request.path_params["name"], parameters_in(await rest_routes.read_json(request))
        )
        return {}

    async def unload(request: Request) -> object:
        await repository.unload(request.path_params["name"])
        return {}

    async def statistics(_: Request) -> object:
        return model_description.statistics_json(await repository.statistics())

    # A repository may be named in the path; there is one alone, so its name means nothing.
    prefixes = (paths.V2_REPOSITORY, f"{paths.V2_REPOSITORY}{{repository:name}}/")
    return [
        rest_routes.route("GET", paths.V2_STATISTICS, statistics),
        *(rest_routes.route("POST", f"{prefix}index", index) for prefix in prefixes),
        *(
            rest_routes.route("POST", f"{prefix}models/{{name:name}}/load", load)
            for prefix in prefixes
        ),
        *(
            rest_routes.route("POST", f"{prefix}models/{{name:name}}/unload", unload)
            for prefix in prefixes
        ),
    ]


def parameters_in(body: dict[str, Any]) -> dict[str, str | bytes]:
    """Return the parameters of a load; files are base64 in JSON. Raises InvalidRequest."""
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict) or not all(
        isinstance(value, str) for value in parameters.values()
    ):
        raise errors.InvalidRequest("`parameters` must be an object of strings")
    return {
        key: _file(key, value) if key.startswith(FILE) else value
        for key, value in parameters.items()
    }


def _file(key: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise errors.InvalidRequest(f"parameter {key!r} is not base64") from None

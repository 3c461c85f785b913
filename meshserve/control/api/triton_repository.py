"""Triton's repository extension: list, load and unload models, and take uploaded ones.

A registered model that is not in memory counts as ready, because a request brings it there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from meshserve import errors
from meshserve.control import admin_service, mesh_json
from meshserve.control.api import rest_routes, triton_load_config, uploads
from meshserve.core.values import catalog, model, model_stats
from meshserve.protocol import model_description, paths

FILE = "file:"
CONFIG = "config"
COLD = "not in memory: the next request loads it"
UNLOADED = "unloaded"
Parameters = Mapping[str, str | bytes]
Specs = tuple[model.ModelSpec, ...]


class TritonRepository:
    """The extension's methods, whichever protocol they are called by."""

    def __init__(self, service: admin_service.AdminService, files_dir: str) -> None:
        self._service = service
        self._files_dir = files_dir

    def index(self, *, only_ready: bool) -> Iterator[model_description.IndexEntry]:
        """Yield every registered version by name, or only those that are ready.

        What a repository has besides, and why it is not served, comes behind them.
        """
        view = self._service.view()
        for declared in self._declared():
            id_ = declared.spec.id
            _, copy = mesh_json.foremost(id_, view.reported_copies(id_))
            state, reason = triton_state(copy.state, copy.reason)
            if declared.spec.unloaded:
                state, reason = "UNAVAILABLE", UNLOADED
            if state == "READY" or not only_ready:
                yield model_description.IndexEntry(id_, state, reason)
        for name, reason in {} if only_ready else self._service.unserved().items():
            # Another origin may serve the name, and then it is in the index already.
            if not view.models.versions(name):
                yield model_description.IndexEntry(model.ModelId(name, ""), "UNAVAILABLE", reason)

    def _declared(self) -> list[catalog.ModelDeclared]:
        return sorted(self._service.view().models, key=lambda declared: declared.spec.id)

    async def load(self, name: str, parameters: Parameters) -> None:
        """Load a model as its owner declares it, or as the parameters have it until the next load.

        Raises InvalidRequest for unknown or malformed parameters, or the reason why the model
        cannot be loaded; then it is served as before.
        """
        if not name:
            raise errors.InvalidRequest("a load must name a model")
        unknown = [key for key in parameters if key != CONFIG and not key.startswith(FILE)]
        if unknown:
            raise errors.InvalidRequest(
                f"unknown parameter {unknown[0]!r}; there are: config, file:<version>/<path>"
            )
        if parameters:
            await self._override(self._service.model_name(name), parameters)
        else:
            await self._service.load_own(name)

    async def _override(self, name: str, parameters: Parameters) -> None:
        config = parameters.get(CONFIG)
        files = {
            key.removeprefix(FILE): as_bytes(content)
            for key, content in parameters.items()
            if key.startswith(FILE)
        }
        # In Triton's words, which its clients look for.
        if config is None:
            raise errors.InvalidRequest(
                "failed to poll from model repository: files need a `config` parameter beside them"
            )
        # Asked first, to bring it back if what comes can't be loaded.
        before = self._service.specs(name)
        if files:
            specs = await self._uploaded(name, files, as_text(config))
        else:
            specs = await self._redeclared(name, before, as_text(config))
        await self._service.override(name, specs)
        try:
            for spec in specs:
                await self._service.load(name, spec.id.version)
        except errors.LoadFailed:
            # As in Triton, what can't be loaded changes nothing. A new name stays, with the reason.
            if before:
                is_overridden = bool(before[0].replaced)
                await self._service.override(name, before if is_overridden else ())
            raise

    async def _uploaded(self, name: str, files: dict[str, bytes], config: str) -> Specs:
        """Keep the files, which take the place of the model's folder; return its versions."""
        declared = triton_load_config.read(config)
        labels = triton_load_config.take_labels(declared, files)
        # In a thread, because hashing and writing big files would hold up all other requests.
        folders = await asyncio.to_thread(uploads.keep, self._files_dir, files)
        specs = [
            dataclasses.replace(
                self._service.spec({"name": name, "version": version, "uri": str(folder)}),
                # Uploads need no file root of the configuration: their own folder bounds them.
                file_root=str(folder),
            )
            for version, folder in folders.items()
        ]
        return triton_load_config.redeclare_all(specs, declared, labels)

    async def _redeclared(self, name: str, before: Specs, config: str) -> Specs:
        """Return the versions that the model has by this configuration. Raises ModelNotFound."""
        if not before:
            raise errors.ModelNotFound(f"model {name!r} is not registered")
        declared = triton_load_config.read(config)
        own = before[0].replaced or before
        # A repository may hold versions that the folder's own configuration does not serve.
        scanned = await self._service.as_declared(own[0], config)
        return scanned or triton_load_config.redeclare_all(own, declared)

    async def unload(self, name: str) -> None:
        """Evict every copy of every version; until a load, requests for the model are not found.

        Raises InvalidRequest without a name, ModelNotFound, or Conflict for a pinned model.
        """
        if not name:
            raise errors.InvalidRequest("an unload must name a model")
        # Triton unloads a model by its name alone.
        await self._service.set_unloaded(name, unloaded=True)
        # Only now, because before that a request could have brought an evicted copy back.
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


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Begin the message of each error with the words by which Triton's clients know it.

    Raises ModelNotFound, or an error of the class of the one that left the context.
    """
    try:
        yield
    except errors.ModelNotFound as error:
        raise errors.ModelNotFound(
            f"failed to load {name!r}, failed to poll from model repository: {error.message}"
        ) from None
    except errors.MeshError as error:
        raise type(error)(
            f"failed to load {name!r}, {error.message}", retry_after_s=error.retry_after_s
        ) from None


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
        name = request.path_params["name"]
        with loading(name):
            await repository.load(name, parameters_in(await rest_routes.read_json(request)))
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

"""The repository extension: list what there is, load, unload, and take models that come with the request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from meshserve import errors
from meshserve.control import admin_service, mesh_views
from meshserve.control.api import triton_load_config, uploads
from meshserve.core.values import model_stats
from meshserve.protocol import model_description

FILE = "file:"
CONFIG = "config"
COLD = "not in memory: the next request loads it"
Parameters = Mapping[str, str | bytes]


class TritonRepository:
    """Triton's and MLServer's verbs. A registered model that is not in memory is ready: a request brings it there."""

    def __init__(self, of: admin_service.AdminService, files_dir: str) -> None:
        self._clerk = of
        self._files_dir = files_dir

    def index(self, *, only_ready: bool) -> Iterator[model_description.IndexEntry]:
        """Every registered version, by name."""
        view = self._clerk.view()
        for declared in sorted(view.models, key=lambda each: each.spec.id):
            found = mesh_views.foremost(view.reported_copies(declared.spec.id))
            word, reason = told(*(found[1].state, found[1].reason) if found else ("absent", ""))
            if word == "READY" or not only_ready:
                yield model_description.IndexEntry(declared.spec.id, word, reason)

    async def load(self, name: str, parameters: Parameters) -> None:
        """Have the model in memory; where files or a configuration come with the request, register them first."""
        if not name:
            raise errors.InvalidRequest("a load must name a model")
        unknown = [key for key in parameters if key != CONFIG and not key.startswith(FILE)]
        if unknown:
            raise errors.InvalidRequest(
                f"unknown parameter {unknown[0]!r}; there are: config, file:<version>/<path>"
            )
        if parameters:
            await self._register(name, parameters)
        await self._clerk.load(name)

    async def _register(self, name: str, parameters: Parameters) -> None:
        changed = (
            triton_load_config.entry_from(as_text(parameters[CONFIG]))
            if CONFIG in parameters
            else {}
        )
        files = {
            key.removeprefix(FILE): as_bytes(found)
            for key, found in parameters.items()
            if key.startswith(FILE)
        }
        if not files:
            await self._register_changed(name, changed)
            return
        if CONFIG not in parameters:
            raise errors.InvalidRequest("files need a `config` parameter beside them")
        kept = await asyncio.to_thread(uploads.keep, self._files_dir, files)
        for version, folder in kept.items():
            spec = self._clerk.spec(
                {"name": name, "version": version, "uri": str(folder), **changed}
            )
            await self._clerk.register(spec, is_replacing=True)

    async def _register_changed(self, name: str, changed: dict[str, Any]) -> None:
        spec = self._clerk.declared(name).spec
        there = {
            "name": spec.id.name,
            "version": spec.id.version,
            "uri": spec.uri,
            "runtime": spec.runtime,
            "pool": spec.pool,
        }
        kept = {
            "pinned": spec.pinned,
            "trust": spec.trust,
            "checksum": spec.checksum,
            "load_timeout_s": spec.load_timeout_s,
        }
        await self._clerk.register(
            self._clerk.spec({**there, **kept, **changed}), is_replacing=True
        )

    async def unload(self, name: str) -> None:
        """Have every copy of the model go; it stays registered."""
        if not name:
            raise errors.InvalidRequest("an unload must name a model")
        for version in self._clerk.view().models.versions(name) or ("",):
            await self._clerk.unload(name, version)

    async def statistics(self) -> list[model_description.ModelStatistics]:
        """The numbers of every registered model, all workers together."""
        counted = await self._clerk.stats()
        view = self._clerk.view()
        return [
            model_description.ModelStatistics(
                each.spec.id,
                counted.get(each.spec.id, model_stats.ModelStats()),
                mesh_views.footprint(view, each),
            )
            for each in sorted(view.models, key=lambda each: each.spec.id)
        ]


def told(state: str, reason: str) -> tuple[str, str]:
    """A copy's state in Triton's words."""
    match state:
        case "failed":
            return "UNAVAILABLE", reason
        case "loading" | "fetching":
            return "LOADING", ""
        case "ready" | "parked":
            return "READY", ""
    return "READY", COLD


def as_text(found: str | bytes) -> str:
    """A parameter that is text. Raises InvalidRequest."""
    try:
        return found.decode() if isinstance(found, bytes) else found
    except UnicodeDecodeError:
        raise errors.InvalidRequest("`config` must be text") from None


def as_bytes(found: str | bytes) -> bytes:
    """A parameter that is bytes. Raises InvalidRequest."""
    if isinstance(found, str):
        raise errors.InvalidRequest("a file must be given as bytes")
    return found

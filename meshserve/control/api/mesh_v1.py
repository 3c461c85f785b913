"""`/mesh/v1`: the management API of the command line and of programs."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from meshserve import errors
from meshserve.control import admin_service, mesh_views
from meshserve.control.api import http_messages
from meshserve.core.values import desired, events, model
from meshserve.protocol import paths

Action = Callable[[str, str], Awaitable[model.ModelId]]


class MeshApi:
    """Answers requests whose path begins with `/mesh/v1/`."""

    def __init__(self, of: admin_service.AdminService) -> None:
        self._clerk = of
        self._verbs: dict[str, Action] = {
            "load": of.load,
            "unload": of.unload,
            "pin": lambda name, version: of.pin(name, version, is_pinned=True),
            "unpin": lambda name, version: of.pin(name, version, is_pinned=False),
        }

    async def answer(self, request: http_messages.HttpRequest) -> http_messages.HttpAnswer | None:
        """The answer; nothing where there is no such path or method. Raises MeshError."""
        parts = [
            unquote(part)
            for part in request.path.removeprefix(paths.MESH_V1).rstrip("/").split("/")
        ]
        match request.method, parts:
            case "GET", ["status"]:
                return http_messages.json_answer(self._status())
            case "POST", ["apply"]:
                return http_messages.json_answer({"changes": await self._clerk.apply(request.body)})
            case "POST", ["drain"]:
                self._clerk.drain()
                return http_messages.json_answer({"draining": True})
            case _, ["models", *rest]:
                return await self._models(request, rest)
            case _, ["aliases", *rest]:
                return await self._aliases(request, rest)
        return None

    def _status(self) -> mesh_views.Json:
        process = {"pid": os.getpid(), "restarts": self._clerk.controller.restarts}
        return {
            "version": importlib.metadata.version("meshserve"),
            **mesh_views.status(self._clerk.view()),
            "controller": process,
        }

    async def _models(
        self, request: http_messages.HttpRequest, rest: list[str]
    ) -> http_messages.HttpAnswer | None:
        version = request.query.get("version", "")
        match request.method, rest:
            case "GET", []:
                return http_messages.json_answer(
                    mesh_views.models(self._clerk.view(), choice(request))
                )
            case "GET", [name]:
                return http_messages.json_answer(await self._clerk.describe(name, version))
            case "PUT", [name]:
                return http_messages.json_answer(await self._put(name, version, request.json()))
            case "DELETE", [name]:
                return http_messages.json_answer(await self._delete(name, version))
            case "POST", [name, verb] if verb in self._verbs:
                id_ = await self._verbs[verb](name, version)
                return http_messages.json_answer(await self._clerk.describe(*id_))
        return None

    async def _put(self, name: str, version: str, body: mesh_views.Json) -> mesh_views.Json:
        if body.get("name", name) != name or version not in ("", body.get("version", version)):
            raise errors.InvalidRequest(
                f"the body names another model than the path: {body.get('name')!r} {body.get('version', '')!r}"
            )
        entry = {**body, "name": name, **({"version": version} if version else {})}
        spec = self._clerk.spec(entry)
        await self._clerk.register(spec, is_replacing=True)
        if "aliases" in entry:
            await self._set_aliases(spec.id, entry["aliases"])
        return await self._clerk.describe(*spec.id)

    async def _set_aliases(self, id_: model.ModelId, wanted: list[str]) -> None:
        view = self._clerk.view()
        for alias in view.aliases_of(id_.name).difference(wanted):
            meant = view.aliases[alias]
            if meant.version == id_.version and meant.origin == model.FROM_API:
                await self._clerk.clear_alias(alias)
        for alias in wanted:
            await self._clerk.set_alias(
                events.AliasRequested(desired.DesiredAlias(alias, id_.name, id_.version))
            )

    async def _delete(self, name: str, version: str) -> mesh_views.Json:
        gone = await self._clerk.describe(name, version)
        await self._clerk.remove(name, version)
        return gone

    async def _aliases(
        self, request: http_messages.HttpRequest, rest: list[str]
    ) -> http_messages.HttpAnswer | None:
        aliases = self._clerk.view().aliases
        match request.method, rest:
            case "GET", []:
                return http_messages.json_answer(
                    {"aliases": [alias_view(aliases[alias]) for alias in sorted(aliases)]}
                )
            case "GET" | "DELETE", [alias]:
                view = alias_view(self._known(alias))
                if request.method == "DELETE":
                    await self._clerk.clear_alias(alias)
                return http_messages.json_answer(view)
            case "PUT", [alias]:
                await self._clerk.set_alias(events.AliasRequested(alias_in(alias, request.json())))
                return http_messages.json_answer(alias_view(self._known(alias)))
        return None

    def _known(self, alias: str) -> desired.DesiredAlias:
        found = self._clerk.view().aliases.get(alias)
        if found is None:
            raise errors.ModelNotFound(f"alias {alias!r} is not set")
        return found


def choice(request: http_messages.HttpRequest) -> mesh_views.ModelFilter:
    """Which models a listing asks for. Raises InvalidRequest."""
    state = request.query.get("state", "")
    if state not in ("", *mesh_views.STATE_ORDER):
        raise errors.InvalidRequest(
            f"there is no state {state!r}; there are: {', '.join(mesh_views.STATE_ORDER)}"
        )
    return mesh_views.ModelFilter(
        request.query.get("prefix", ""), state, request.limit(), request.query.get("after", "")
    )


def alias_view(alias: desired.DesiredAlias) -> mesh_views.Json:
    """One alias as users see it."""
    return {
        "alias": alias.alias,
        "model": alias.name,
        "version": alias.version,
        "origin": str(alias.origin),
        "owner": alias.owner,
        "target": alias.target,
        "failure": alias.failure,
    }


def alias_in(alias: str, body: mesh_views.Json) -> desired.DesiredAlias:
    """The alias that a body describes. Raises InvalidRequest."""
    name, version = body.get("model"), body.get("version", "")
    unknown = set(body) - {"model", "version"}
    if unknown:
        raise errors.InvalidRequest(f"unknown key {min(unknown)!r}; there are: model, version")
    if not isinstance(name, str) or not name or not isinstance(version, str):
        raise errors.InvalidRequest(
            "an alias needs `model`, the name of a model, and may have `version`, both text"
        )
    return desired.DesiredAlias(alias, name, version)

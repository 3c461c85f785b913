"""`/mesh/v1`: the management API of the command line and of programs."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from meshserve import errors
from meshserve.control import admin_service, mesh_json, node_json
from meshserve.control.api import rest_routes
from meshserve.core.values import desired, events, model
from meshserve.protocol import paths

MODELS = f"{paths.MESH_V1}models"
MODEL = f"{MODELS}/{{name:name}}"
ALIASES = f"{paths.MESH_V1}aliases"
ALIAS = f"{ALIASES}/{{alias:name}}"
NODE_DRAIN = f"{paths.NODES}/{{node:name}}/drain"
Verb = Callable[[str, str], Awaitable[model.ModelId]]


class MeshApi:
    """Turns REST requests into calls of the admin service, and its answers into JSON."""

    def __init__(self, service: admin_service.AdminService) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the routes of the whole API."""
        service = self._service
        pin, unpin = (functools.partial(service.pin, is_pinned=pinned) for pinned in (True, False))
        return [
            rest_routes.route("GET", f"{paths.MESH_V1}status", self._status),
            rest_routes.route("POST", f"{paths.MESH_V1}apply", self._apply),
            rest_routes.route("POST", f"{paths.MESH_V1}drain", self._drain),
            rest_routes.route("POST", NODE_DRAIN, self._drain_node),
            rest_routes.route("DELETE", NODE_DRAIN, self._end_node_drain),
            rest_routes.route("GET", MODELS, self._list_models),
            rest_routes.route("GET", MODEL, self._show_model),
            rest_routes.route("PUT", MODEL, self._put_model),
            rest_routes.route("DELETE", MODEL, self._remove_model),
            rest_routes.route("POST", f"{MODEL}/load", self._verb(service.load_own)),
            rest_routes.route("POST", f"{MODEL}/unload", self._verb(service.unload)),
            rest_routes.route("POST", f"{MODEL}/release", self._verb(service.release)),
            rest_routes.route("POST", f"{MODEL}/pin", self._verb(pin)),
            rest_routes.route("POST", f"{MODEL}/unpin", self._verb(unpin)),
            rest_routes.route("GET", ALIASES, self._list_aliases),
            rest_routes.route("GET", ALIAS, self._show_alias),
            rest_routes.route("PUT", ALIAS, self._put_alias),
            rest_routes.route("DELETE", ALIAS, self._remove_alias),
        ]

    async def _status(self, _: Request) -> object:
        return {
            "version": importlib.metadata.version("meshserve"),
            **self._service.status(),
            "controller": {"pid": os.getpid(), "restarts": self._service.controller.restarts},
        }

    async def _apply(self, request: Request) -> object:
        self._service.files.check_may_apply(is_owner=self._is_owner(request))
        return {"changes": await self._service.apply(await rest_routes.read_body(request))}

    def _is_owner(self, request: Request) -> bool:
        return self._service.files.is_owner(request.headers.get(paths.OWNER_HEADER, ""))

    async def _drain(self, _: Request) -> object:
        self._service.drain()
        return {"draining": True}

    # Nodes

    async def _drain_node(self, request: Request) -> object:
        body = await rest_routes.read_json(request)
        wish = node_json.drain_request(request.path_params["node"], body)
        return {"changes": await self._service.controller.submit(wish)}

    async def _end_node_drain(self, request: Request) -> object:
        wish = events.NodeDrainEndRequested(request.path_params["node"])
        return {"changes": await self._service.controller.submit(wish)}

    # Models

    async def _list_models(self, request: Request) -> object:
        return mesh_json.models(self._service.view(), model_filter(request))

    async def _show_model(self, request: Request) -> object:
        return await self._service.describe(*_name_and_version(request))

    async def _put_model(self, request: Request) -> object:
        name, version = _name_and_version(request)
        body = await rest_routes.read_json(request)
        if body.get("name", name) != name or version not in ("", body.get("version", version)):
            raise errors.InvalidRequest(
                "the body names another model than the path: "
                f"{body.get('name')!r} {body.get('version', '')!r}"
            )
        entry = {**body, "name": name, **({"version": version} if version else {})}
        spec = self._service.spec(entry)
        unchecked = await self._service.register(
            spec, is_replacing=True, is_owner=self._is_owner(request)
        )
        # A body without the key says nothing of aliases, which then stay as they are.
        if "aliases" in entry:
            await self._replace_aliases(spec.id, entry["aliases"])
        shown = await self._service.describe(*spec.id)
        return {**shown, "reason": shown["reason"] or unchecked}

    async def _replace_aliases(self, id_: model.ModelId, aliases: list[str]) -> None:
        view = self._service.view()
        for alias in view.aliases_of(id_.name).difference(aliases):
            current = view.aliases[alias]
            # Aliases of other versions, and those of the configuration, are not this request's.
            if current.version == id_.version and current.origin == model.FROM_API:
                await self._service.clear_alias(alias)
        for alias in aliases:
            target = desired.DesiredAlias(alias, id_.name, id_.version)
            await self._service.set_alias(events.AliasRequested(target))

    async def _remove_model(self, request: Request) -> object:
        name, version = _name_and_version(request)
        removed: object = None
        # Asked before the removal, after which nothing is left to describe. The removal refuses an
        # unknown name, once all workers know that it is gone.
        with contextlib.suppress(errors.ModelNotFound):
            removed = await self._service.describe(name, version)
        await self._service.remove(name, version)
        return removed

    def _verb(self, perform: Verb) -> rest_routes.Handler:
        async def answer(request: Request) -> object:
            id_ = await perform(*_name_and_version(request))
            return await self._service.describe(*id_)

        return answer

    # Aliases

    async def _list_aliases(self, _: Request) -> object:
        aliases = self._service.view().aliases
        return {"aliases": [self._shown(aliases[alias]) for alias in sorted(aliases)]}

    async def _show_alias(self, request: Request) -> object:
        return self._shown(self._alias(request))

    async def _put_alias(self, request: Request) -> object:
        body = await rest_routes.read_json(request)
        alias = alias_from(request.path_params["alias"], body)
        await self._service.set_alias(events.AliasRequested(alias))
        return self._shown(self._alias(request))

    async def _remove_alias(self, request: Request) -> object:
        name = request.path_params["alias"]
        removed = self._service.view().aliases.get(name)
        await self._service.clear_alias(name)  # refuses one that is not set
        return removed and alias_view(removed)

    def _shown(self, alias: desired.DesiredAlias) -> dict[str, str]:
        failure = mesh_json.alias_failure(self._service.view(), alias)
        return {**alias_view(alias), "failure": failure}

    def _alias(self, request: Request) -> desired.DesiredAlias:
        name = request.path_params["alias"]
        alias = self._service.view().aliases.get(name)
        if alias is None:
            raise errors.ModelNotFound(f"alias {name!r} is not set")
        return alias


def _name_and_version(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.query_params.get("version", "")


def model_filter(request: Request) -> mesh_json.ModelFilter:
    """Return the filter in a listing's query. Raises InvalidRequest."""
    query = request.query_params
    state = query.get("state", "")
    if state not in ("", *mesh_json.STATE_ORDER):
        raise errors.InvalidRequest(
            f"there is no state {state!r}; there are: {', '.join(mesh_json.STATE_ORDER)}"
        )
    return mesh_json.ModelFilter(
        query.get("prefix", ""), state, rest_routes.limit(request), query.get("after", "")
    )


def alias_view(alias: desired.DesiredAlias) -> dict[str, str]:
    """Return the JSON of an alias."""
    return {
        "alias": alias.alias,
        "model": alias.name,
        "version": alias.version,
        "origin": str(alias.origin),
        "owner": alias.owner,
        "target": alias.target,
        "failure": alias.failure,
    }


def alias_from(alias: str, body: dict[str, Any]) -> desired.DesiredAlias:
    """Return the alias that a body describes. Raises InvalidRequest."""
    name, version = body.get("model"), body.get("version", "")
    unknown = set(body) - {"model", "version"}
    if unknown:
        raise errors.InvalidRequest(f"unknown key {min(unknown)!r}; there are: model, version")
    if not isinstance(name, str) or not name or not isinstance(version, str):
        raise errors.InvalidRequest(
            "an alias needs `model`, the name of a model, and may have `version`, both text"
        )
    return desired.DesiredAlias(alias, name, version)

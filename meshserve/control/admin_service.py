"""What users can ask for, whichever protocol they speak. Each answer holds for every worker and gateway that can be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshserve import config, errors
from meshserve.config import desired_state
from meshserve.control import controller, mesh_views
from meshserve.core.values import catalog, desired, events, model, reports

Applied = Callable[[desired.Desired], None]


class AdminService:
    """Turns wishes into events and waits for what comes of them. `on_applied` hears of each configuration that holds from now on."""

    def __init__(self, of: controller.Controller, on_applied: Applied) -> None:
        self.controller = of
        self.mesh = of.mesh
        self._on_applied = on_applied

    async def apply(self, document: bytes) -> tuple[str, ...]:
        """Bring a configuration about; returns what it changed, in words. Raises what is wrong with it, and changes nothing then."""
        wanted = desired_state.from_document(
            document.decode("utf-8", "replace"), await self.controller.cluster.capacity()
        )
        words = await self._wish(events.ConfigApplied(wanted))
        self._on_applied(wanted)
        return words

    async def _wish(self, wish: events.AdminRequest) -> tuple[str, ...]:
        words = await self.controller.submit(wish)
        if words:
            await self.controller.wait_until_settled()
        return words

    def drain(self) -> None:
        """Have everything end in good order, in its own time."""
        self.controller.post(events.DrainRequested())

    def declared(self, name: str, version: str = "") -> catalog.ModelDeclared:
        """The model that a name means. Raises ModelNotFound."""
        id_ = self.mesh.catalog.models.resolve(name, version)
        declared = self.mesh.catalog.models.declared(id_)
        if declared is None:
            raise errors.ModelNotFound(f"model {str(id_)!r} is not registered")
        return declared

    def spec(self, entry: dict[str, Any], origin: model.Origin = model.FROM_API) -> model.ModelSpec:
        """A spec from an entry of `models:`. Raises ConfigInvalid with all that is wrong."""
        parsed = config.parse_model(entry)
        pool = self.mesh.catalog.desired.pool(parsed.pool)
        return parsed.spec(
            pool.load_timeout_s if pool else desired.PoolSettings().load_timeout_s, origin
        )

    async def register(self, spec: model.ModelSpec, *, is_replacing: bool) -> None:
        """Have the model served. Raises AlreadyExists where the name means something else."""
        await self._wish(events.ModelsRegistered((spec,), is_replacing))

    async def remove(self, name: str, version: str = "") -> None:
        """Have the model, or one version of it, not served any more. Raises ModelNotFound, Conflict."""
        await self._wish(events.ModelRemoved(name, version))

    async def set_alias(self, wish: events.AliasRequested) -> None:
        """Give an alias its meaning. Raises ModelNotFound, AlreadyExists, Conflict."""
        await self._wish(wish)

    async def clear_alias(self, alias: str, owner: str = "") -> None:
        """Take an alias's meaning away. Raises ModelNotFound, AlreadyExists, Conflict."""
        await self._wish(events.AliasRemovalRequested(alias, owner))

    async def pin(self, name: str, version: str, *, is_pinned: bool) -> model.ModelId:
        """Have the model stay in memory, or not any more; returns which it is."""
        id_ = self.declared(name, version).spec.id
        await self._wish(events.PinRequested(id_, is_pinned))
        return id_

    async def load(
        self, name: str, version: str = "", timeout_s: float | None = None
    ) -> model.ModelId:
        """Have the model in memory where requests for `name` go; returns which it is. Raises why it can't be."""
        return await self.controller.ensure_loaded(name, version, timeout_s)

    async def unload(self, name: str, version: str = "") -> model.ModelId:
        """Have every copy of the model go; the next request brings it back. Raises Conflict where it is pinned."""
        return await self.controller.unload(name, version)

    async def copies(self, id_: model.ModelId) -> dict[str, reports.CopyReport]:
        """The model's copies by worker, as they are now."""
        return await self.controller.copies(id_)

    async def view(self, name: str, version: str = "") -> mesh_views.Json:
        """One model as users see it, as it is now. Raises ModelNotFound."""
        declared = self.declared(name, version)
        return mesh_views.one_model(self.mesh, declared, await self.copies(declared.spec.id))

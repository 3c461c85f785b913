"""Changes the adapters of an engine that runs."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Collection

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.llm import model_names

FetchAdapter = Callable[[llm_spec.Adapter], Awaitable[str]]
"""Returns the folder of an adapter's weights on this node. Raises MeshError."""


class AdapterChanges:
    """The adapters of one engine, under names that the engine has had for no other weights.

    An engine may keep what it computed with an adapter under the adapter's name, so that other
    weights under the same name would be answered by a mixture of both.
    """

    def __init__(
        self, engine: llm_engine.Engine, names: model_names.RenamedModels, fetch: FetchAdapter
    ) -> None:
        self._engine = engine
        self._names = names
        self._fetch = fetch
        self._used: set[str] = set()

    async def change(
        self, before: Collection[llm_spec.Adapter], after: Collection[llm_spec.Adapter]
    ) -> None:
        """Serve other adapters: new ones first, so that requests always find those that stay.

        Raises MeshError if one can't be served; then all are as before.
        """
        if set(before) == set(after):
            return
        if not self._engine.capabilities.can_change_adapters:
            raise errors.Unsupported("this engine takes no other adapters while it runs")
        names = {adapter.name: self._engine_name(adapter.name) for adapter in before}
        # The adapters of the engine's start are noted here, because `_add` has not seen them.
        self._used.update(names.values())
        kept = {adapter.name: names[adapter.name] for adapter in after if adapter in before}
        added = await self._add([adapter for adapter in after if adapter not in before])
        # Before the removals, so that no new request goes to an adapter that leaves.
        self._names.adapters = kept | added
        for name in sorted(set(names.values()) - set(kept.values())):
            await self._engine.remove_adapter(name)

    async def _add(self, adapters: Collection[llm_spec.Adapter]) -> dict[str, str]:
        added: dict[str, str] = {}
        try:
            for adapter in adapters:
                name = self._unused_name(adapter.name)
                await self._engine.add_adapter(name, await self._fetch(adapter))
                self._used.add(name)
                added[adapter.name] = name
        except errors.MeshError:
            for name in added.values():
                await self._engine.remove_adapter(name)
            raise
        return added

    def _engine_name(self, called: str) -> str:
        # The adapters of the start have the names that clients call.
        return self._names.adapters.get(called, called)

    def _unused_name(self, called: str) -> str:
        names = itertools.chain([called], (f"{called}@{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in self._used)

"""Earlier contents of models whose present files do not load, from the cache of the node.

A worker that has just started holds no copy that could go on answering while a replacement is
broken. The cache may still hold what the files were: it is loaded as what the model was before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from meshserve.core.interfaces import model_runtime
from meshserve.core.memory import version_choice
from meshserve.core.values import catalog, catalog_sync, model


class EarlierContents:
    """Declarations of what models were before, by the ids that their copies have then."""

    def __init__(
        self, storage: model_runtime.Storage, follower: catalog_sync.CatalogFollower
    ) -> None:
        self._storage = storage
        self._follower = follower
        self._declared: dict[model.ModelId, catalog.ModelDeclared | None] = {}
        self._loaded_uris: dict[model.ModelId, str] = {}

    def note_loaded(self, ids: Iterable[model.ModelId]) -> None:
        """Remember that the models have loaded in this worker, as they are declared now."""
        for id_ in ids:
            declared = self._follower.catalog.declared(id_)
            if declared is not None:
                self._loaded_uris[id_] = declared.spec_to_fetch.uri

    async def find(self, id_: model.ModelId) -> model.ModelId | None:
        """Return the id under which an earlier content of the model can be loaded, None if none.

        Only of a model that has loaded since it was registered: else nothing answered before.
        """
        declared = self._follower.catalog.declared(id_)
        if declared is None:
            return None
        previous = version_choice.previous_id(id_)
        # Once for each declaration: every request for a broken model comes here.
        if previous not in self._declared:
            uri = await self._earlier_uri(declared)
            earlier = dataclasses.replace(declared, stamped_uri=uri) if uri else None
            # The model may have been declared anew during the look into the cache.
            if self._follower.catalog.declared(id_) is not declared:
                return None
            self._declared[previous] = earlier
        return previous if self._declared[previous] else None

    async def _earlier_uri(self, declared: catalog.ModelDeclared) -> str:
        uri = declared.spec_to_fetch.uri
        # The controller hears of loads a second later, so what this worker knows comes first:
        # nobody may get an older content than before.
        loaded_uri = self._loaded_uris.get(declared.spec.id, "")
        if declared.measured or catalog.place(loaded_uri) == catalog.place(uri):
            return await self._storage.find_earlier(uri)
        return loaded_uri or declared.earlier_uri

    def declared(self, id_: model.ModelId) -> catalog.ModelDeclared | None:
        """Return the declaration with this id, or of what the model was before."""
        return self._follower.catalog.declared(id_) or self._declared.get(id_)

    def forget(self, id_: model.ModelId) -> None:
        """Look again when this model, declared anew or withdrawn, fails the next time."""
        self._declared.pop(version_choice.previous_id(id_), None)
        if self._follower.catalog.declared(id_) is None:
            self._loaded_uris.pop(id_, None)

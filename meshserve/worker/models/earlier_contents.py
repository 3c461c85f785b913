"""Earlier contents of models whose present files do not load, from the cache of the node.

A worker that has just started holds no copy that could go on answering while a replacement is
broken. The cache may still hold what the files were: it is loaded as what the model was before.
"""

from __future__ import annotations

import dataclasses

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

    async def find(self, id_: model.ModelId) -> model.ModelId | None:
        """Return the id under which an earlier content of the model can be loaded, None if none.

        Only of a model that has loaded since it was registered: else nothing answered before.
        """
        declared = self._follower.catalog.declared(id_)
        if declared is None or not (declared.measured or declared.earlier_uri):
            return None
        previous = version_choice.previous_id(id_)
        # Once for each declaration: every request for a broken model comes here.
        if previous not in self._declared:
            cached_uri = await self._storage.find_earlier(declared.spec_to_fetch.uri)
            uri = (cached_uri if declared.measured else None) or declared.earlier_uri
            earlier = dataclasses.replace(declared, stamped_uri=uri) if uri else None
            # The model may have been declared anew during the look into the cache.
            if self._follower.catalog.declared(id_) is not declared:
                return None
            self._declared[previous] = earlier
        return previous if self._declared[previous] else None

    def declared(self, id_: model.ModelId) -> catalog.ModelDeclared | None:
        """Return the declaration with this id, or of what the model was before."""
        return self._follower.catalog.declared(id_) or self._declared.get(id_)

    def forget(self, id_: model.ModelId) -> None:
        """Look again when this model, declared anew or withdrawn, fails the next time."""
        self._declared.pop(version_choice.previous_id(id_), None)

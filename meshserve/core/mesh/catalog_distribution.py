"""Send changes of the catalog to the workers, and keep the measurements that workers report."""

from __future__ import annotations

from collections.abc import Iterable

from meshserve.core.catalog import catalog_index, changeset
from meshserve.core.processes import workers
from meshserve.core.values import catalog, catalog_sync, commands, registry_contents, reports

NOISE = 0.2
"""Footprints that differ by less of the larger one are one footprint, measured twice."""


class CatalogDistribution:
    """Applies changes to the catalog, and sends them to the workers of their pools."""

    def __init__(
        self, index: catalog_index.CatalogIndex, workers_: workers.Workers, out: commands.Outbox
    ) -> None:
        self._index = index
        self._workers = workers_
        self._out = out

    def apply(self, changes: Iterable[registry_contents.RegistryChange]) -> None:
        """Apply saved changes."""
        self._send(
            pool_change
            for change in changes
            for pool_change in self._index.apply(self._with_measurement(change))
        )

    def _with_measurement(
        self, change: registry_contents.RegistryChange
    ) -> registry_contents.RegistryChange:
        # A measurement that came while the change was being saved must not be overwritten.
        if not isinstance(change, catalog.ModelDeclared):
            return change
        declared = self._index.models.declared(change.spec.id)
        measured = changeset.reusable_measurement(declared, change.spec)
        return catalog.ModelDeclared(change.spec, measured or change.measured)

    def learn(self, measurements: Iterable[reports.LearnedMeasurement]) -> None:
        """Keep the measurements that differ from the known ones, and send them to all workers."""
        learned: list[reports.LearnedMeasurement] = []
        pool_changes: list[catalog_index.PoolChange] = []
        for measurement in measurements:
            declared = self._index.models.declared(measurement.id)
            if declared and not measurement.measured.is_known(declared.measured, NOISE):
                learned.append(measurement)
                changed = catalog.ModelDeclared(declared.spec, measurement.measured)
                pool_changes += self._index.apply(changed)
        if learned:
            self._send(pool_changes)
            self._out.append(commands.RememberMeasured(tuple(learned)))

    def send_full(self, worker: workers.WorkerRecord) -> None:
        """Send a worker the full catalog of its pool."""
        self._workers.send_full(worker, self._index.parts(worker.settings.pool))

    def _send(self, pool_changes: Iterable[catalog_index.PoolChange]) -> None:
        by_pool: dict[str, list[catalog.Change]] = {}
        for pool_change in pool_changes:
            by_pool.setdefault(pool_change.pool, []).append(pool_change.change)
        for pool, changes in by_pool.items():
            parts = catalog_sync.split_changes(changes)
            for worker in self._workers.of_pool(pool):
                if worker.is_up:
                    self._workers.send(worker, parts)

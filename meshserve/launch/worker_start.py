"""Build a pool worker in its own process, which imports what a worker needs and no more."""

from __future__ import annotations

import logging

from meshserve.core.values import desired, model
from meshserve.launch import process_start
from meshserve.logs import log_files
from meshserve.storage import artifact_store
from meshserve.worker import worker


def build_worker(
    logs: log_files.LogPlan, address: model.ServerAddress, settings: desired.WorkerSettings
) -> worker.PoolWorker:
    """Build a pool worker with its artifact cache."""
    # What a model logs as information is its owner's to see.
    process_start.begin_process(logs, address.id, logging.INFO)
    cache = artifact_store.ArtifactStore(
        settings.cache_path, settings.cache_bytes_max, settings.artifact_bytes_max
    )
    return worker.PoolWorker(address, settings, cache)

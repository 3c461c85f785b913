"""Builds the real parts, each inside the process that holds it."""

from __future__ import annotations

import functools
import json

from meshserve import config
from meshserve.cluster import controller_process, ray_cluster
from meshserve.control import control_plane
from meshserve.launch import gateway_start, process_start, replica_start, worker_start
from meshserve.registry import sql_registry
from meshserve.storage import llm_weights, repository_watch, source_check, source_stamps


def build_control_plane(
    plan: controller_process.ControllerPlan,
) -> controller_process.HostedControlPlane:
    """Build the control plane with its registry, its repository watch and its port to Ray."""
    process_start.begin_process(plan.logs, "controller")
    settings = config.parse(json.loads(plan.document))
    cache = replica_start.CacheLimits(
        str(settings.cache_path), settings.cache.size, settings.cache.artifact_bytes_max
    )
    makers = ray_cluster.Makers(
        worker=functools.partial(worker_start.build_worker, plan.logs),
        gateway=functools.partial(gateway_start.build_gateway, plan.logs, plan.secret),
        replica=functools.partial(replica_start.build_llm_server, plan.logs, cache),
        run_dir=plan.run_dir,
        secret=plan.secret,
    )
    database = sql_registry.SqlRegistry(plan.registry_url)
    parts = control_plane.ControlPlaneParts(
        ray_cluster.RayCluster(makers),
        database,
        repository_watch.FolderWatch(),
        plan.state_dir,
        check_uri=source_check.check_exists,
        identify_weights=llm_weights.identify,
        owner_key=plan.owner_key,
        stamp_sources=source_stamps.find_changed,
    )
    return controller_process.HostedControlPlane(plan, parts, database.close)

"""Build a gateway in its own process, which imports what a gateway needs and no more."""

from __future__ import annotations

import os
from pathlib import Path

from meshserve.gateway import gateway
from meshserve.gateway.envoy import gateway_paths
from meshserve.launch import process_start
from meshserve.logs import log_files


def build_gateway(logs: log_files.LogPlan, secret: str, run_dir: str) -> gateway.NodeGateway:
    """Build the gateway of one node, which sends the mesh's secret to all servers of the mesh."""
    # Each node has a folder of its own on a cluster that has others, which may share their files.
    suffix = f"-{Path(run_dir).name}" if secret else ""
    is_json = logs.form == "json"
    envoys = gateway_paths.GatewayLogs(logs.folder, logs.access, is_json=is_json, suffix=suffix)
    process_start.begin_process(logs, f"gateway{suffix}", others=envoys.files)
    # The raylet, which is the parent of all actors: Envoy serves on without the gateway's process,
    # but not without the node's.
    return gateway.NodeGateway(
        run_dir,
        guardian_pid=os.getppid(),
        secret=secret,
        logs=envoys,
        module_dir=str(Path(logs.folder).parent / "native"),
    )

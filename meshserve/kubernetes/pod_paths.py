"""Where things lie in a pod, and the ports on which its processes listen."""

from __future__ import annotations

VOLUME_DIR = "/var/lib/meshserve"
STATE_DIR = f"{VOLUME_DIR}/state"
"""Below the volume's own folder, which is root's: the mesh takes all rights of others from it."""

CONFIG_DIR = "/etc/meshserve/config"
KEYS_DIR = "/etc/meshserve/keys"
CONFIG_FILE = "config.yaml"
KEEPER_FILE = "keep.sh"
CANARY_FILE = "canary.onnx"

CANARY_MODEL = "meshserve-canary"
CANARY_CLIENT = "meshserve-canary"
CANARY_VARIABLE = "MESHSERVE_CANARY_KEY"

GCS_PORT = 6379
RAYLET_PORT = 6380
METRICS_PORT = 6382
DASHBOARD_PORT = 8265
AGENT_PORT = 52365
WORKER_PORTS = range(10002, 20000)
"""Ray's own choice for the gRPC servers of its worker processes."""

GATEWAY = "gateway"
"""The name of the gateway's port in every pod and Service."""

USER_ID = 1000
"""The user of all processes, whom `Dockerfile` makes."""

"""The paths of a gateway's sockets, configuration and log, below one folder of its own."""

from __future__ import annotations

import hashlib
import urllib.parse
from pathlib import Path
from typing import NamedTuple

from meshserve.gateway.envoy import Json

# sizeof(sockaddr_un.sun_path) on Linux, less the zero at its end (unix(7)).
SOCKET_PATH_BYTES_MAX = 107

RESTART_SOCKET = "e_udp_parent_999990"
"""The longest name of a socket between an Envoy and the holder of its ports."""


class GatewayLogs(NamedTuple):
    """Where a gateway's Envoy logs. `access` is the share of requests with a line of their own.

    `suffix` tells the files of several nodes apart.
    """

    folder: str
    access: float = 0.0
    is_json: bool = False
    suffix: str = ""

    @property
    def envoy(self) -> str:
        """The path of what Envoy says of itself."""
        return f"{self.folder}/envoy{self.suffix}.log"

    @property
    def requests(self) -> str:
        """The path of the access log."""
        return f"{self.folder}/access{self.suffix}.log"

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of both."""
        return self.envoy, self.requests


class GatewayPaths:
    """Paths below `run_dir`, which must be short enough for the paths of sockets in it.

    Envoy watches `config_dir`, which has only its configuration, writes to `log`, and is
    administered by `admin_socket`. Its keeper listens on `keeper_socket`, and has `restart_dir` for
    itself. The sidecar's servers listen on the other sockets.
    """

    def __init__(self, run_dir: str, logs: GatewayLogs | None = None, module: str = "") -> None:
        """Without `logs` Envoy's log is in `run_dir` too. `module`: see `native_calls`."""
        self.run_dir = run_dir
        self.module = module
        self.config_dir = f"{run_dir}/envoy"
        self.admin_socket = f"{run_dir}/envoy-admin.sock"
        self.keeper_socket = f"{run_dir}/envoy-keeper.sock"
        self.restart_dir = f"{run_dir}/hot"
        self.grpc_socket = f"{run_dir}/node-grpc.sock"
        self.http_socket = f"{run_dir}/node-http.sock"
        self.logs = logs or GatewayLogs(f"{run_dir}/logs")
        self.log = self.logs.envoy

    def config(self, name: str) -> str:
        """Return the path of one of Envoy's configuration files."""
        return f"{self.config_dir}/{name}"

    def source(self, name: str) -> Json:
        """Return one of Envoy's configuration files as the source of its resources."""
        return {"path_config_source": {"path": self.config(name)}, "resource_api_version": "V3"}

    def any_worker_socket(self, pool: str) -> str:
        """Return the path of Envoy's own socket to any worker of the pool."""
        # Names of pools may be longer than what is left for a socket's path.
        digest = hashlib.sha256(pool.encode()).hexdigest()[:8]
        return f"{self.run_dir}/any-{digest}.sock"

    def make_folders(self) -> None:
        """Create the folders. Raises OSError, also if `run_dir` is too long for sockets in it."""
        if len(f"{self.restart_dir}/{RESTART_SOCKET}".encode()) > SOCKET_PATH_BYTES_MAX:
            raise OSError(
                f"the folder {self.run_dir} has too long a name: "
                f"a Unix socket in it would be over {SOCKET_PATH_BYTES_MAX} bytes"
            )
        Path(self.config_dir).mkdir(parents=True, exist_ok=True)
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)

    def remove_sockets(self) -> None:
        """Remove the sockets, which a killed process leaves behind."""
        paths = (self.admin_socket, self.keeper_socket, self.grpc_socket, self.http_socket)
        for socket_path in (*map(Path, paths), *Path(self.run_dir).glob("any-*.sock")):
            socket_path.unlink(missing_ok=True)


def members_file(cluster: str) -> str:
    """Return the name of the file with a cluster's members; the cluster may have any name."""
    return f"eds-{urllib.parse.quote(cluster, safe='')}.json"


def cluster_of(file: str) -> str:
    """Return the cluster whose members are in the file of this name."""
    return urllib.parse.unquote(file.removeprefix("eds-").removesuffix(".json"))

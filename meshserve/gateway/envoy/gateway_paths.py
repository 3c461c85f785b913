"""Where a gateway keeps its sockets, its configuration and its log, all below one folder that lives as long as it does."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_BYTES_MAX = 107


@dataclass(frozen=True, slots=True)
class GatewayPaths:
    """Names below `run_dir`, which should be short: a Unix socket's path may have 107 bytes."""

    run_dir: str

    @property
    def config_dir(self) -> str:
        """The folder that Envoy watches; nothing else is written there."""
        return f"{self.run_dir}/envoy"

    @property
    def admin_socket(self) -> str:
        """Envoy's own administration."""
        return f"{self.run_dir}/envoy-admin.sock"

    @property
    def grpc_socket(self) -> str:
        """The node's grpc.aio server."""
        return f"{self.run_dir}/node-grpc.sock"

    @property
    def http_socket(self) -> str:
        """The node's HTTP app."""
        return f"{self.run_dir}/node-http.sock"

    @property
    def log(self) -> str:
        """Envoy's log."""
        return f"{self.run_dir}/logs/envoy.log"

    def config(self, name: str) -> str:
        """One of Envoy's configuration files."""
        return f"{self.config_dir}/{name}"

    def make_folders(self) -> None:
        """Make the folders. Raises OSError, also where `run_dir` is too long for a socket in it."""
        if len(self.admin_socket.encode()) > SOCKET_PATH_BYTES_MAX:
            raise OSError(
                f"the folder {self.run_dir} has too long a name: a Unix socket in it would be over {SOCKET_PATH_BYTES_MAX} bytes"
            )
        Path(self.config_dir).mkdir(parents=True, exist_ok=True)
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)

    def remove_sockets(self) -> None:
        """Remove what a killed process may have left."""
        for socket_path in (self.admin_socket, self.grpc_socket, self.http_socket):
            Path(socket_path).unlink(missing_ok=True)


def members_file(cluster: str) -> str:
    """The name of the file with a cluster's members; safe for any cluster name."""
    return f"eds-{urllib.parse.quote(cluster, safe='')}.json"


def cluster_of(file: str) -> str:
    """The cluster whose members are in the file of that name."""
    return urllib.parse.unquote(file.removeprefix("eds-").removesuffix(".json"))

"""The paths of a gateway's sockets, configuration and log, below one folder of its own."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from meshserve.gateway.envoy import Json

# sizeof(sockaddr_un.sun_path) on Linux, less the zero at its end (unix(7)).
SOCKET_PATH_BYTES_MAX = 107


@dataclass(frozen=True, slots=True)
class GatewayPaths:
    """Paths below `run_dir`, which must be short enough for the paths of sockets in it."""

    run_dir: str

    @property
    def config_dir(self) -> str:
        """The folder that Envoy watches; it has only Envoy's configuration."""
        return f"{self.run_dir}/envoy"

    @property
    def admin_socket(self) -> str:
        """The socket of Envoy's administration."""
        return f"{self.run_dir}/envoy-admin.sock"

    @property
    def grpc_socket(self) -> str:
        """The socket of the sidecar's gRPC server."""
        return f"{self.run_dir}/node-grpc.sock"

    @property
    def http_socket(self) -> str:
        """The socket of the sidecar's HTTP server."""
        return f"{self.run_dir}/node-http.sock"

    @property
    def log(self) -> str:
        """Envoy's log file."""
        return f"{self.run_dir}/logs/envoy.log"

    def config(self, name: str) -> str:
        """Return the path of one of Envoy's configuration files."""
        return f"{self.config_dir}/{name}"

    def source(self, name: str) -> Json:
        """Return one of Envoy's configuration files as the source of its resources."""
        return {"path_config_source": {"path": self.config(name)}, "resource_api_version": "V3"}

    def make_folders(self) -> None:
        """Create the folders. Raises OSError, also if `run_dir` is too long for sockets in it."""
        if len(self.admin_socket.encode()) > SOCKET_PATH_BYTES_MAX:
            raise OSError(
                f"the folder {self.run_dir} has too long a name: "
                f"a Unix socket in it would be over {SOCKET_PATH_BYTES_MAX} bytes"
            )
        Path(self.config_dir).mkdir(parents=True, exist_ok=True)
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)

    def remove_sockets(self) -> None:
        """Remove the sockets, which a killed process leaves behind."""
        for socket_path in (self.admin_socket, self.grpc_socket, self.http_socket):
            Path(socket_path).unlink(missing_ok=True)


def members_file(cluster: str) -> str:
    """Return the name of the file with a cluster's members; the cluster may have any name."""
    return f"eds-{urllib.parse.quote(cluster, safe='')}.json"


def cluster_of(file: str) -> str:
    """Return the cluster whose members are in the file of this name."""
    return urllib.parse.unquote(file.removeprefix("eds-").removesuffix(".json"))

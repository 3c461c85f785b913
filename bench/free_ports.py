"""A TCP port for a server that is about to be started."""

from __future__ import annotations

import contextlib
import random
import socket

# Above those that Ray gives its workers, below those that systems give to whom does not choose (Linux: ip_local_port_range): what was
# free a moment ago is then still free when the server comes.
PORTS = (20_000, 32_000)


def free_port() -> int:
    """A port of the loopback interface that no program listens on."""
    system = random.SystemRandom()
    while True:
        port = system.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port

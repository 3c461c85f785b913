"""Find a TCP port for a server that is about to start."""

from __future__ import annotations

import contextlib
import random
import socket

# Above the ports that Ray gives its workers, and below those that Linux gives to programs that
# choose none (ip_local_port_range), so that a free port is still free when the server starts.
PORTS = (20_000, 32_000)


def free_port() -> int:
    """Return a port of the loopback interface that no program listens on."""
    system = random.SystemRandom()
    while True:
        port = system.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port

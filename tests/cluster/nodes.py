"""Machines of a test: each a network, process and mount namespace of its own, on one bridge.

Nothing of it has a name on this machine, and the kernel ends all of it when this process ends,
even by SIGKILL: each namespace's first process dies with its parent, and all others with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import support

BIN = Path(sys.executable).parent
NETWORK = "10.77.0"
GATEWAY_PORT = 18300
RAY_PORT = 6379
TOOLS = ("unshare", "nsenter", "setpriv", "ip")
START_S = 120.0


def reason_to_skip() -> str:
    """Why this machine can't have them, empty if it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no {missing[0]} on this machine"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    words = ["unshare", "--net", "--pid", "--mount", "--fork", "ip", "link", "add", "name", "b"]
    tried = subprocess.run([*words, "type", "bridge"], capture_output=True, text=True, check=False)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Namespace:
    """One first process, and the namespaces that it holds."""

    def __init__(self, *kinds: str) -> None:
        # Dies with this process; with it its child, which is the first process of a namespace, and
        # the kernel kills all others of it.
        self.process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", *kinds),
                *("--fork", "--kill-child=KILL", "sleep", "infinity"),
            ],
            stdin=subprocess.DEVNULL,
        )
        self.started: list[subprocess.Popen[bytes]] = []
        support.wait_until(self._find_child, START_S, "a namespace is there")
        self.pid = self._find_child()
        self.enter = ["nsenter", "--net", "--target", str(self.pid)]
        if "--pid" in kinds:
            self.enter += ["--pid", "--mount"]

    def _find_child(self) -> int:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = path.read_text().split()
        # Until it runs `sleep`, the child may not have its namespaces yet.
        if not children or "sleep" not in Path(f"/proc/{children[0]}/comm").read_text():
            return 0
        return int(children[0])

    def run(self, *words: Any, **options: Any) -> str:
        done = subprocess.run(
            [*self.enter, "--", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            **{"timeout": START_S, **options},
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def kill(self) -> None:
        """End all its processes at once."""
        self.process.kill()
        for process in (self.process, *self.started):
            process.wait(START_S)


class Node(Namespace):
    """A machine with an address, a cable to the bridge, and a Ray that may run on it."""

    def __init__(self, network: Network, number: int) -> None:
        super().__init__("--net", "--pid", "--mount", "--mount-proc")
        self.number, self.address = number, f"{NETWORK}.{number}"
        self.cable = f"cable{number}"
        self.network = network
        self.folder = network.folder / f"n{number}"
        self.folder.mkdir(exist_ok=True)
        self.log = self.folder / "ray.out"
        self.listen = f"{self.address}:{GATEWAY_PORT}"
        switch = network.switch
        peer = ("peer", "eth0", "netns", self.pid)
        switch.run("ip", "link", "add", self.cable, "type", "veth", *peer)
        switch.run("ip", "link", "set", self.cable, "master", "bridge0", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def start(self, *words: Any, log: Path, **variables: str) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self.enter, "--", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**self.network.variables, **variables},
            )
        self.started.append(process)
        return process

    def meshserve(self, *words: Any, **options: Any) -> str:
        return self.run(BIN / "meshserve", *words, env=self.network.variables, **options)

    def start_ray(self, *words: str, **variables: str) -> None:
        role = ["--address", self.network.ray_address]
        if self.number == 1:
            role = ["--head", "--port", str(RAY_PORT), "--include-dashboard=false"]
            role += ["--temp-dir", str(self.folder)]
        self.ray = self.start(
            *[BIN / "ray", "start", *role, "--node-ip-address", self.address, *words],
            *["--num-cpus", "4", "--object-store-memory", str(80 << 20)],
            *["--disable-usage-stats", "--block"],
            log=self.log,
            RAY_TMPDIR=str(self.folder),
            **variables,
        )

    def is_up(self) -> bool:
        assert self.ray.poll() is None, self.log.read_text()
        return "Ray runtime started" in self.log.read_text()

    def cut(self) -> None:
        self.network.switch.run("ip", "link", "set", self.cable, "down")

    def mend(self) -> None:
        self.network.switch.run("ip", "link", "set", self.cable, "up")


class Network:
    """A bridge and the machines on it; this process reaches them by `switch`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[Node] = []
        self.ray_address = f"{NETWORK}.1:{RAY_PORT}"
        self.switch = Namespace("--net")
        self.switch.run("ip", "link", "add", "bridge0", "type", "bridge")
        self.switch.run("ip", "address", "add", f"{NETWORK}.254/24", "dev", "bridge0")
        self.switch.run("ip", "link", "set", "bridge0", "up")
        self.variables = {
            **os.environ,
            "MESHSERVE_HOME": str(folder / "home"),
            "TMPDIR": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # Ray's own limit, 30 s, is too short where tests run side by side.
            "RAY_raylet_start_wait_time_s": str(int(START_S)),
            "RAY_ADDRESS": self.ray_address,
            "RAY_worker_niceness": "0",
            "RAY_memory_monitor_refresh_ms": "0",
        }

    def add(self, *words: str, **variables: str) -> Node:
        """Connect one more machine, and start a Ray on it."""
        node = Node(self, len(self.nodes) + 1)
        self.nodes.append(node)
        node.start_ray(*words, **variables)
        return node

    def add_all(self, count: int) -> None:
        """Connect so many machines; return when Ray runs on all of them."""
        support.wait_until(self.add().is_up, START_S, "Ray runs on the head")
        others = [self.add() for _ in range(count - 1)]
        support.wait_until(lambda: all(n.is_up() for n in others), START_S, "Ray runs on all")

    def begin_load(self, models: int, per_s: float, *listens: str) -> subprocess.Popen[str]:
        """Start traffic from the bridge (`load.py`)."""
        words = [sys.executable, "-m", "tests.cluster.load", str(models), str(per_s), *listens]
        return subprocess.Popen(
            [*self.switch.enter, "--", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.variables,
            text=True,
        )

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        self.switch.kill()


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A bridge without machines; all of it ends with the block."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    started = Network(folder)
    try:
        yield started
    finally:
        started.close()

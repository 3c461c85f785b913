"""All sockets of a group of processes to which somebody could connect, from Linux's /proc."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LISTEN = "0A"
ACCEPTS = 0x10000
"""The flag __SO_ACCEPTCON of a listening Unix socket (net/unix/af_unix.c)."""


class Port(NamedTuple):
    """A port that is listened on, TCP or UDP, by a process with this name."""

    owner: str
    kind: str
    host: str
    number: int


class Listening(NamedTuple):
    """`paths` has the names of Unix sockets, abstract ones with "@" in front."""

    ports: frozenset[Port]
    paths: frozenset[str]


def find(pids: Iterable[int]) -> Listening:
    """Return what these processes listen on, in all address families."""
    owners = {inode: _name(pid) for pid in pids for inode in _inodes(Path(f"/proc/{pid}/fd"))}
    ports = frozenset(
        Port(owners[inode], kind, host, number)
        for kind in ("tcp", "tcp6", "udp", "udp6")
        for inode, host, number in _internet(kind)
        if inode in owners
    )
    return Listening(ports, frozenset(path for inode, path in _unix() if inode in owners))


def _inodes(descriptors: Path) -> Iterator[int]:
    try:
        for descriptor in descriptors.iterdir():
            match = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
            if match is not None:
                yield int(match[1])
    except OSError:
        return  # the process has ended


def _name(pid: int) -> str:
    """Return the program, the Python module or Ray's title of a process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return "ended"
    title = re.match(r"ray::(\w+)", words[0])
    if title is not None:
        return title[0]
    scripts = [word for word in words[1:] if word.endswith(".py") or "meshserve" in word]
    is_python = Path(words[0]).name.startswith("python")
    return Path(scripts[0] if is_python and scripts else words[0]).stem


def _internet(kind: str) -> Iterator[tuple[int, str, int]]:
    for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
        fields = line.split()
        if kind.startswith("udp") or fields[3] == LISTEN:
            host, _, port = fields[1].partition(":")
            yield int(fields[9]), _address(host), int(port, 16)


def _address(digits: str) -> str:
    # Each group of four bytes is in the machine's own order (proc_net_tcp in the kernel's docs).
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _unix() -> Iterator[tuple[int, str]]:
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        is_datagram = fields[4] == "0002"
        if len(fields) == 8 and (is_datagram or int(fields[3], 16) & ACCEPTS):
            yield int(fields[6]), fields[7]

"""Listening sockets that outlive an Envoy: the next one takes them as at Envoy's hot restart.

An Envoy with `--restart-epoch 1` takes its sockets from the Envoy before it, over Unix datagrams
(source/server/hot_restart.proto in github.com/envoyproxy/envoy, version 11). This is in the place
of that one. While no Envoy lives, the kernel queues the clients' connections.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import functools
import random
import re
import shutil
import socket
import struct
from pathlib import Path

BACKLOG = 4096
EPOCH = 1
BASE_IDS = 100_000
MESSAGE_BYTES_MAX = 4096

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Envoy looks for it
_VERSION = 11
_SHARED_BYTES = 104
_LOCKS = (16, 56)
_ATTRIBUTE_BYTES = 64
_PROCESS_SHARED = 1
_ROBUST = 1

_LENGTH = struct.Struct(">Q")
# HotRestartMessage.request (1) with one of its requests: the field's number is in the tag.
_PASS_SOCKET, _SHUTDOWN_ADMIN, _DRAIN_LISTENERS = 1, 2, 4
# HotRestartMessage.reply (2) with pass_listen_socket (1) or shutdown_admin (2).
_SOCKET_REPLY = b"\x12\x02\x0a\x00"
_NO_SOCKET_REPLY = b"\x12\x0d\x0a\x0b\x08" + b"\xff" * 9 + b"\x01"
_ADMIN_REPLY = b"\x12\x02\x12\x00"

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("HBBI")
_PROGRAM = struct.Struct("HxxxxxxP")
_RETURN = 0x06

_TCP = re.compile(r"tcp://\[?([^\]]+)\]?:(\d+)")


class PortHolder:
    """Holds the sockets that an Envoy listens on, for the next one.

    `folder` is for the sockets between the two. Envoy dies of wrong answers, not the holder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._base_id = 0
        self._channels: list[socket.socket] = []
        self._ports: dict[str, socket.socket] = {}

    def prepare(self) -> list[str]:
        """Make all that the next Envoy needs; return the options to start it with.

        Without shared memory it can't take sockets over, and gets the option to do without.
        """
        self._forget_envoy()
        try:
            self._make_shared_memory()
        except OSError:
            return ["--disable-hot-restart"]
        self._folder.mkdir(mode=0o700)
        path = f"{self._folder}/e"
        for role in ("parent", "udp_parent"):
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            channel.bind(f"{path}_{role}_{self._base_id * 10}")
            channel.settimeout(0)
            self._channels.append(channel)
        return [
            *("--base-id", str(self._base_id), "--restart-epoch", str(EPOCH)),
            *("--socket-path", path, "--socket-mode", "600"),
            # There is no other Envoy whose statistics could be continued, and none to be ended.
            "--skip-hot-restart-parent-stats",
            *("--parent-shutdown-time-s", str((1 << 32) - 1)),
        ]

    def fileno(self) -> int:
        """Return the descriptor of Envoy's questions, -1 where it asks none."""
        return self._channels[0].fileno() if self._channels else -1

    def answer(self) -> None:
        """Answer one question of Envoy; ignore what is none, or whose asker has ended."""
        channel = self._channels[0]
        with contextlib.suppress(OSError, IndexError, UnicodeDecodeError):
            message, _, _, envoy = channel.recvmsg(MESSAGE_BYTES_MAX)
            body = message[_LENGTH.size :]
            request = body[2] >> 3
            if request == _PASS_SOCKET:
                self._pass_socket(body[6 : 6 + body[5]].decode(), envoy)
            elif request == _SHUTDOWN_ADMIN:
                channel.sendto(_framed(_ADMIN_REPLY), envoy)
            elif request == _DRAIN_LISTENERS:
                # Envoy has begun: a killed holder must leave no shared memory behind.
                self._unlink_shared_memory()

    def keep_only(self, addresses: list[str]) -> None:
        """Close the sockets of all addresses but these, which are like `tcp://127.0.0.1:80`."""
        for address in set(self._ports) - set(addresses):
            self._ports.pop(address).close()

    def refuse(self) -> None:
        """Take no new connections on any port; those in its queue still reach Envoy.

        Closing a port instead would reset them. New clients try again a second later, when the port
        is closed, and are refused.
        """
        for port in self._ports.values():
            port.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _drop_all())

    def close(self) -> None:
        """Close and remove everything."""
        self.keep_only([])
        self._forget_envoy()

    def _pass_socket(self, address: str, envoy: str) -> None:
        try:
            port = self._ports.get(address) or _listen(address)
        except (OSError, ValueError):
            # Envoy then tries to listen itself, and its error is told as any other of its errors.
            self._channels[0].sendto(_framed(_NO_SOCKET_REPLY), envoy)
            return
        self._ports[address] = port
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [port.fileno()]))
        self._channels[0].sendmsg([_framed(_SOCKET_REPLY)], [rights], 0, envoy)

    def _make_shared_memory(self) -> None:
        """Make what Envoys share: sizes, two locks for their logs, and flags. Raises OSError."""
        content = _shared_memory()
        while True:
            # All programs of the machine share these names.
            self._base_id = random.randrange(1, BASE_IDS)  # noqa: S311 - no secret
            with contextlib.suppress(FileExistsError), self._shared_path.open("xb") as file:
                self._shared_path.chmod(0o600)
                file.write(content)
                return

    @property
    def _shared_path(self) -> Path:
        # Envoy multiplies its base ids by 10.
        return SHARED_MEMORY / f"envoy_shared_memory_{self._base_id * 10}"

    def _unlink_shared_memory(self) -> None:
        if self._base_id:
            self._shared_path.unlink(missing_ok=True)
            self._base_id = 0

    def _forget_envoy(self) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self._unlink_shared_memory()
        shutil.rmtree(self._folder, ignore_errors=True)


def _framed(message: bytes) -> bytes:
    return _LENGTH.pack(len(message)) + message


def _listen(address: str) -> socket.socket:
    """Return a listening socket. Raises OSError, or ValueError for an unknown form of address."""
    parts = _TCP.fullmatch(address)
    if parts is None:
        raise ValueError(address)
    host, port = parts[1], int(parts[2])
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # The next one must not wait for the connections of a killed one to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            # As Envoy's own IPv6 sockets.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    return listener


@functools.cache
def _filter_code() -> ctypes.Array[ctypes.c_char]:
    # Kept, because the kernel gets its address. The one instruction returns 0 bytes of each packet.
    return ctypes.create_string_buffer(_INSTRUCTION.pack(_RETURN, 0, 0, 0))


def _drop_all() -> bytes:
    """Return the socket filter that drops each packet (`struct sock_fprog`, linux/filter.h)."""
    return _PROGRAM.pack(1, ctypes.addressof(_filter_code()))


def _shared_memory() -> bytes:
    """Return `SharedMemory` of source/server/hot_restart_impl.h: size, version, locks, flags."""
    libc = ctypes.CDLL(None)
    content = ctypes.create_string_buffer(_SHARED_BYTES)
    struct.pack_into("QQ", content, 0, _SHARED_BYTES, _VERSION)
    attribute = ctypes.create_string_buffer(_ATTRIBUTE_BYTES)
    libc.pthread_mutexattr_init(attribute)
    libc.pthread_mutexattr_setpshared(attribute, _PROCESS_SHARED)
    libc.pthread_mutexattr_setrobust(attribute, _ROBUST)
    for offset in _LOCKS:
        libc.pthread_mutex_init(ctypes.byref(content, offset), attribute)
    return content.raw

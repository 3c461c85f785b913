"""Parse a model's URI: its kind of source, its path, and its form without credentials."""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from meshserve import errors

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
OBJECTS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
SUPPORTED = "a path, file://, http(s)://, s3://, gs:// or az://"
Kind = Literal["local", "http", "objects"]
NODE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]
"""This machine in stamps: inodes and times mean nothing on another one's disk."""
STAMP = re.compile(r"([0-9a-f]{16})(?:-([0-9a-f]{4}))?")


@dataclass(frozen=True, slots=True)
class ModelUri:
    """A parsed URI.

    `uri` is the URI, or a local path, however it was written. `path` is the local path, or the
    part of the URI after the host. `shown` is for logs and errors, without credentials. `stamp` is
    empty, or the beginning of the `content.Stamp` of the files that are meant; `is_stamped_here`:
    it was taken on this machine, so other files are other content. `file_root` is empty, or the
    folder in which a local path must really lie.
    """

    uri: str
    kind: Kind
    path: str
    shown: str
    stamp: str = ""
    is_stamped_here: bool = False
    file_root: str = ""

    @property
    def name(self) -> str:
        """The last part of the path: the name of a file or folder."""
        return Path(self.path).name

    @property
    def is_archive(self) -> bool:
        """Whether a file of this name is unpacked."""
        return self.name.lower().endswith(ARCHIVES)


def parse(uri: str) -> ModelUri:
    """Parse a URI.

    Raises LoadFailed for a relative path, another host in `file://`, or an unknown scheme.
    """
    match = SCHEME.match(uri)
    if match is None:
        return _local(uri, uri, "")
    scheme = match[1].lower()
    if scheme == "file":
        return _local(_file_path(uri), uri, urlsplit(uri).fragment)
    parts = urlsplit(uri)
    if scheme not in ("http", "https", *OBJECTS) or not parts.netloc:
        raise errors.LoadFailed(f"{redacted(uri)} can't be fetched: expected {SUPPORTED}")
    if scheme in ("http", "https"):
        return ModelUri(uri, "http", unquote(parts.path), redacted(uri))
    # As it is written: a key may hold `?`, `#` and `%`.
    _, _, key = uri.partition("://")[2].partition("/")
    return ModelUri(uri, "objects", key, redacted(uri))


def stamped(path: str, stamp: str) -> str:
    """Return the URI of a local file or folder whose `content.Stamp` has this text."""
    return f"file://{quote(path)}#{stamp[:16]}-{NODE}"


def redacted(uri: str) -> str:
    """Return the URI without user, password and query, for logs and errors."""
    if SCHEME.match(uri) is None:
        return uri
    parts = urlsplit(uri)
    # From the right: a password may hold an `@`, and would be shown in part.
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"***{at}{host}" if user else host
    return f"{parts.scheme}://{netloc}{parts.path}{'?***' if parts.query else ''}"


def _file_path(uri: str) -> str:
    # A fragment is a repository's stamp of the files, and no part of the path.
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise errors.LoadFailed(
            f"{uri} is on another machine: a file:// URI must be on this node's disk"
        )
    return unquote(parts.path)


def _local(path: str, uri: str, fragment: str) -> ModelUri:
    if not path.startswith("/"):
        raise errors.LoadFailed(
            f"{uri!r} can't be fetched: expected an absolute path or {SUPPORTED}"
        )
    if "\0" in path:
        raise errors.LoadFailed(f"{uri!r} can't be fetched: a path has no null characters")
    match = STAMP.fullmatch(fragment)
    if match is None:
        return ModelUri(path, "local", path, path)
    return ModelUri(path, "local", path, path, match[1], is_stamped_here=match[2] == NODE)

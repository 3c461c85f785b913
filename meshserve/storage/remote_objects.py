"""The objects that a URI names on the network, read through obstore, and its errors in words.

A URI of an object store names one object, or a folder (prefix) of them. Endpoints and credentials
come from the environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ALLOW_HTTP and so on; GOOGLE_… and AZURE_… alike. http is tested against a real server, s3
against moto's server process; gs and az run the same code and were never tried.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from obstore import store as obstores
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from meshserve import errors
from meshserve.storage import content, model_uri

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from obstore import GetResult, ObjectMeta
    from obstore.store import ClientConfig, HTTPStore, ObjectStore, RetryConfig

RETRY: RetryConfig = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
CLIENT: ClientConfig = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "2h"}
"""Silence ends a download, not its length, because a big file may take any time."""
EXPECTED = (BaseError, OSError, ValueError)
"""The exceptions that obstore raises."""
TRUE = ("1", "true", "yes", "on")
URL = re.compile(r"https?://[^\s)]+")
WORDS = {
    "Content-Length Header missing": "the server does not say how long the file is",
    "Range request not supported": (
        "the download broke off, and the server can't go on where it stopped"
    ),
    "BadScheme": "the endpoint has no TLS, and AWS_ALLOW_HTTP=true is not set",
    "169.254.169.254": "no credentials were found in the environment, such as AWS_ACCESS_KEY_ID",
    "Account must be specified": (
        "no account was found in the environment, such as AZURE_STORAGE_ACCOUNT_NAME"
    ),
}
"""What to say to a user, by a part of obstore's message."""


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One object of a source.

    `name` is its path below the source's folder, "" if the source is one object. `state` changes
    whenever the content does (an ETag, or time and size); empty if the store gives nothing such.
    """

    key: str
    name: str
    size_bytes: int
    state: str


class RemoteObjects:
    """The objects of one source."""

    def __init__(self, source: model_uri.ModelUri) -> None:
        self._source = source
        self._store, self._key = _http(source.uri) if source.kind == "http" else _objects(source)

    async def list(self) -> tuple[RemoteObject, ...]:
        """Return the source's one object, or all of a folder's that are not hidden.

        Raises FileNotFoundError if there is nothing, LoadFailed if there are too many.
        """
        # A key without a slash at its end may be a folder's or, as is tried first, an object's.
        if self._source.kind == "http" or not self._key.endswith("/"):
            with contextlib.suppress(FileNotFoundError):
                return (_described(await self._store.head_async(self._key), self._key, ""),)
        return await self._list_folder(self._key.rstrip("/"))

    async def _list_folder(self, folder: str) -> tuple[RemoteObject, ...]:
        if self._source.kind == "http":
            raise FileNotFoundError
        prefix = f"{folder}/" if folder else ""
        objects: dict[str, RemoteObject] = {}
        async for batch in _batches(self._store, prefix):
            for meta in batch:
                name = meta["path"].removeprefix(prefix)
                # obstore drops last slashes, so the mark of the folder itself has no name below it.
                if len(prefix) < len(meta["path"]) and not any(
                    content.is_hidden(part) for part in name.split("/")
                ):
                    objects[name] = _described(meta, meta["path"], name)
            # After each batch: a bucket may hold more names than memory does.
            if len(objects) > content.FILES_MAX:
                raise errors.LoadFailed(
                    f"{self._source.shown} holds more than {content.FILES_MAX} files"
                )
        _drop_folder_marks(objects)
        if not objects:
            raise FileNotFoundError
        return tuple(objects[name] for name in sorted(objects))

    async def get(self, object_: RemoteObject | None) -> tuple[RemoteObject, GetResult]:
        """Return an object as it is now, and its bytes as a stream.

        None asks for the source itself, for HTTP servers that answer GET but not HEAD.
        """
        key, name = (object_.key, object_.name) if object_ else (self._key, "")
        result = await self._store.get_async(key)
        return _described(result.meta, key, name), result


def stamp(objects: tuple[RemoteObject, ...]) -> str:
    """Return one text for the states of all objects; empty if one of them has none."""
    if not all(object_.state for object_ in objects):
        return ""
    return content.tree_digest({object_.name: object_.state for object_ in objects})


def failure(source: model_uri.ModelUri, error: BaseException) -> errors.LoadFailed:
    """Return an error of obstore's as one sentence for a user."""
    if isinstance(error, errors.LoadFailed):
        return error
    return errors.LoadFailed(f"{source.shown} can't be fetched: {_words(error)}")


def _words(error: BaseException) -> str:
    message = str(error)
    if isinstance(error, FileNotFoundError):
        return "there is nothing there"
    for sign, words in WORDS.items():
        if sign in message:
            return words
    if (
        isinstance(error, (PermissionDeniedError, UnauthenticatedError))
        or "403 Forbidden" in message
        or "401 Unauthorized" in message
    ):
        return "access was denied"
    # URLs may have credentials in their query.
    first = URL.sub("***", message.splitlines()[0]) if message else type(error).__name__
    return first.rsplit(" - ", 1)[-1].removeprefix("HTTP error: ").strip(" :")


def _http(uri: str) -> tuple[HTTPStore, str]:
    # The root of the store is the whole URI, because only there obstore leaves a query as it is.
    parts = urlsplit(uri)
    user, _, host = parts.netloc.rpartition("@")
    client: ClientConfig = {**CLIENT, "allow_http": parts.scheme == "http"}
    if user:
        secret = base64.b64encode(unquote(user).encode()).decode()
        client["default_headers"] = {"authorization": f"Basic {secret}"}
    return obstores.HTTPStore(
        urlunsplit((parts.scheme, host, parts.path, parts.query, "")),
        client_options=client,
        retry_config=RETRY,
    ), ""


def _objects(source: model_uri.ModelUri) -> tuple[ObjectStore, str]:
    client: ClientConfig = {
        **CLIENT,
        "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in TRUE,
    }
    root = "/".join(source.uri.split("/", 3)[:3])
    try:
        return obstores.from_url(root, client_options=client, retry_config=RETRY), source.path
    except EXPECTED as error:
        raise failure(source, error) from None


async def _batches(store: Any, prefix: str) -> AsyncIterator[list[ObjectMeta]]:
    async for batch in store.list(prefix, chunk_size=1000):
        yield batch


def _drop_folder_marks(objects: dict[str, RemoteObject]) -> None:
    """Drop the empty objects by which consoles mark folders, named without their last slash."""
    folders = {
        name.rsplit("/", cut)[0] for name in objects for cut in range(1, name.count("/") + 1)
    }
    for name in folders & objects.keys():
        if objects[name].size_bytes == 0:
            del objects[name]


def _described(meta: ObjectMeta, key: str, name: str) -> RemoteObject:
    changed: datetime = meta["last_modified"]
    # obstore gives the epoch where a server tells no time, which says nothing of the content.
    state = meta["e_tag"] or (
        f"{changed.isoformat()} {meta['size']}" if changed.timestamp() > 0 else ""
    )
    return RemoteObject(key, name, meta["size"], state)

"""What a URI names on the network: its objects, read through obstore, and its errors in words.

A URI of an object store names one object, or a whole folder (prefix) of them. Endpoints and credentials come from the environment:
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ALLOW_HTTP and so on; GOOGLE_… and AZURE_… alike.
Tested are http against a real server, and s3 against moto's server process; gs and az run the same code and were never tried.
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
"""Beyond connecting, what counts is silence: nobody knows how long a big file takes."""
EXPECTED = (BaseError, OSError, ValueError)
"""What obstore raises."""
TRUE = ("1", "true", "yes", "on")
URL = re.compile(r"https?://[^\s)]+")
WORDS = {
    "Content-Length Header missing": "the server does not say how long the file is",
    "Range request not supported": "the download broke off, and the server can't go on where it stopped",
    "BadScheme": "the endpoint has no TLS, and AWS_ALLOW_HTTP=true is not set",
    "169.254.169.254": "no credentials were found in the environment, such as AWS_ACCESS_KEY_ID",
    "Account must be specified": "no account was found in the environment, such as AZURE_STORAGE_ACCOUNT_NAME",
}


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One object: its key, its place below the source's folder ("" for a source that is one object), and its state in the store's words.

    An empty state means that the store says nothing by which a change would be seen.
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

    async def look(self) -> tuple[RemoteObject, ...]:
        """What there is: one object of the name "", or all of a folder's that are not hidden. Raises FileNotFoundError where nothing is."""
        if self._source.kind == "http" or not self._key.endswith("/"):
            with contextlib.suppress(FileNotFoundError):
                return (_blob(await self._store.head_async(self._key), self._key, ""),)
        return await self._listed(self._key.rstrip("/"))

    async def _listed(self, folder: str) -> tuple[RemoteObject, ...]:
        if self._source.kind == "http":
            raise FileNotFoundError
        prefix = f"{folder}/" if folder else ""
        found: dict[str, RemoteObject] = {}
        async for batch in _batches(self._store, prefix):
            for meta in batch:
                name = meta["path"].removeprefix(prefix)
                if len(prefix) < len(meta["path"]) and not any(
                    content.is_hidden(part) for part in name.split("/")
                ):
                    found[name] = _blob(meta, meta["path"], name)
            if len(found) > content.FILES_MAX:
                raise errors.LoadFailed(
                    f"{self._source.shown} holds more than {content.FILES_MAX} files"
                )
        _drop_folder_marks(found)
        if not found:
            raise FileNotFoundError
        return tuple(found[name] for name in sorted(found))

    async def get(self, blob: RemoteObject | None) -> tuple[RemoteObject, GetResult]:
        """One object as it is now with its bytes to come; None is the source itself, for servers that answer GET but not HEAD."""
        key, name = (blob.key, blob.name) if blob else (self._key, "")
        result = await self._store.get_async(key)
        return _blob(result.meta, key, name), result


def stamp(blobs: tuple[RemoteObject, ...]) -> str:
    """One text for the state of all; empty where one of them has none."""
    if not all(blob.state for blob in blobs):
        return ""
    return content.tree_digest({blob.name: blob.state for blob in blobs})


def failure(source: model_uri.ModelUri, error: BaseException) -> errors.LoadFailed:
    """The one sentence for a user that an error of obstore's comes to."""
    if isinstance(error, errors.LoadFailed):
        return error
    return errors.LoadFailed(f"{source.shown} can't be fetched: {_words(error)}")


def _words(error: BaseException) -> str:
    said = str(error)
    if isinstance(error, FileNotFoundError):
        return "there is nothing there"
    for sign, words in WORDS.items():
        if sign in said:
            return words
    if (
        isinstance(error, (PermissionDeniedError, UnauthenticatedError))
        or "403 Forbidden" in said
        or "401 Unauthorized" in said
    ):
        return "access was denied"
    first = URL.sub("***", said.splitlines()[0]) if said else type(error).__name__
    return first.rsplit(" - ", 1)[-1].removeprefix("HTTP error: ").strip(" :")


def _http(uri: str) -> tuple[HTTPStore, str]:
    """A store whose root is the very URI, because only there obstore leaves a query as it is."""
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


def _drop_folder_marks(found: dict[str, RemoteObject]) -> None:
    """Consoles mark folders by empty objects, whose names obstore gives without their last slash."""
    folders = {name.rsplit("/", cut)[0] for name in found for cut in range(1, name.count("/") + 1)}
    for name in folders & found.keys():
        if found[name].size_bytes == 0:
            del found[name]


def _blob(meta: ObjectMeta, key: str, name: str) -> RemoteObject:
    changed: datetime = meta["last_modified"]
    state = meta["e_tag"] or (
        f"{changed.isoformat()} {meta['size']}" if changed.timestamp() > 0 else ""
    )
    return RemoteObject(key, name, meta["size"], state)

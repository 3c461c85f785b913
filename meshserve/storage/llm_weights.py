"""Tells the weights of an LLM from those that may be at the same place later.

Weights are too large to be read whole whenever a configuration is applied: of each large file
only samples are read. A change that no sample shows still changes the file's time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
from pathlib import Path

from meshserve import errors
from meshserve.core.values import llm_spec
from meshserve.storage import content, hub, model_uri, remote_objects

WHOLE_BYTES_MAX = 1 << 20
"""Smaller files, such as configurations and tokenizers, are read whole."""

SAMPLES = 16
SAMPLE_BYTES = 1 << 16
DIGEST_BYTES = 16
DOCUMENT = ".md"
COMMIT = "commit "
LIST_S = 20.0

logger = logging.getLogger(__name__)


async def identify(uri: str, revision: str = "") -> llm_spec.Weights | None:
    """Return what identifies the weights at `uri` now, None if it can't be found out.

    `uri` is a folder, `hf://ORGANISATION/MODEL` or a folder of an object store. `revision` is the
    branch, tag or commit at Hugging Face.
    """
    if uri.lower().startswith(hub.PREFIX):
        commit = await asyncio.to_thread(hub.commit, uri[len(hub.PREFIX) :], revision)
        return llm_spec.Weights(COMMIT + commit) if commit else None
    try:
        source = model_uri.parse(uri)
        if source.kind == "local":
            return await asyncio.to_thread(_identify_folder, Path(source.path))
        async with asyncio.timeout(LIST_S):
            return await _identify_objects(source)
    except (errors.LoadFailed, TimeoutError, *remote_objects.EXPECTED) as error:
        # Engines say it better, and the weights may be on their machine alone.
        logger.warning("the weights at %s can't be identified: %s", model_uri.redacted(uri), error)
        return None


async def check(uri: str, revision: str, expected: llm_spec.Weights | None) -> None:
    """Raise Unloadable if other weights than the expected ones are at `uri`.

    A commit at Hugging Face does not change, and engines are told to take that one.
    """
    if expected is None or expected.content.startswith(COMMIT):
        return
    if not llm_spec.are_same(expected, await identify(uri, revision)):
        raise errors.Unloadable(
            f"the weights at {model_uri.redacted(uri)} have changed since the configuration was "
            "applied: `meshserve up` again serves what is there now"
        )


def commit_of(weights: llm_spec.Weights | None) -> str:
    """Return the commit at Hugging Face that the weights are, "" if they are none."""
    text = weights.content if weights is not None else ""
    return text.removeprefix(COMMIT) if text.startswith(COMMIT) else ""


def _identify_folder(folder: Path) -> llm_spec.Weights:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    times = hashlib.blake2b(digest_size=DIGEST_BYTES)
    # Only config.yaml names LLMs, so their links may lead anywhere.
    for name, stat in sorted(content.files(folder, may_leave=True)):
        # A corrected README is no other model.
        if name.endswith(DOCUMENT):
            continue
        digest.update(f"{name}\0{stat.st_size}\0".encode("utf-8", "surrogateescape"))
        times.update(f"{name}\0{stat.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
        _sample(folder / name if name else folder, stat.st_size, digest)
    # With the machine, because a copy of the files elsewhere has other times.
    return llm_spec.Weights(digest.hexdigest(), socket.gethostname(), times.hexdigest())


def _sample(path: Path, size_bytes: int, digest: hashlib.blake2b) -> None:
    with path.open("rb") as file:
        if size_bytes <= WHOLE_BYTES_MAX:
            digest.update(file.read())
            return
        step = (size_bytes - SAMPLE_BYTES) // (SAMPLES - 1)
        for number in range(SAMPLES):
            digest.update(os.pread(file.fileno(), SAMPLE_BYTES, number * step))


async def _identify_objects(source: model_uri.ModelUri) -> llm_spec.Weights:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for item in await remote_objects.RemoteObjects(source).list():
        digest.update(f"{item.name}\0{item.size_bytes}\0{item.state}\0".encode())
    return llm_spec.Weights(digest.hexdigest())

"""Decode and encode big JSON bodies off the event loop, so that other requests do not wait.

Python's JSON parsers hold the interpreter lock until they have read the whole document, so a
thread alone does not help against the biggest bodies: a process of its own reads those.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from meshserve import errors
from meshserve.protocol import compression, http_protocol, inference
from meshserve.worker.http import body_pickles

R = TypeVar("R")

THREAD_BYTES_MIN = 128 << 10
"""From this size on a thread does the work.

Measured on one core of 2.5 GHz: JSON takes 7 to 32 ms per MiB, a thread 0.1 ms for its turn.
"""

PROCESS_BYTES_MIN = 3 << 20
"""From this size on a process does the work.

The parser alone takes up to 8 ms per MiB, in which no other thread runs: 24 ms at this size. The
start of a process takes 200 ms of processor time.
"""

THREADS_MAX = 4
"""Enough that one middle body does not wait for another; they share one interpreter lock."""

SAMPLED_TEXTS_MAX = 1024
"""Texts whose lengths are counted to estimate the size of an output."""

MESSAGE_CHARS_MAX = 10_000
"""An error that repeats what is wrong in a big body would be as big."""

QUOTED_BYTES = 3
"""Two quotes and a comma."""

PROGRAM = "from meshserve.worker.http import big_bodies; big_bodies.run_order()"


class BigBodies:
    """Runs functions on bodies: small ones at once, others in threads or processes."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS_MAX, "body")
        # One at a time: each process needs many times the memory of its body.
        self._process_starter = ThreadPoolExecutor(1, "big-body")

    async def inflate(self, body: bytes, headers: Sequence[http_protocol.Header]) -> bytes:
        """Return the body decompressed, as `compression.inflate` does and with its errors."""
        # A few bytes may unpack to the whole limit, so the size says nothing here.
        if not any(name == b"content-encoding" for name, _ in headers):
            return body
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, compression.inflate, body, headers)

    async def run(self, size_bytes: int, function: Callable[..., R], *arguments: object) -> R:
        """Return what the function returns; `size_bytes` of JSON decide where it runs.

        Function, arguments and result must be picklable. Raises what the function raises, and
        MeshError if its process ends without a result.
        """
        if size_bytes < THREAD_BYTES_MIN:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        if size_bytes < PROCESS_BYTES_MIN:
            return await loop.run_in_executor(self._threads, function, *arguments)
        return await loop.run_in_executor(
            self._process_starter, _run_in_process, function, arguments
        )

    def free_soon(self, arrays: list[np.ndarray]) -> None:
        """Free arrays of any shape in a thread, so that others run meanwhile; empty the list."""
        # Not at once: whatever has just used them, as an exception's frames, must let them go.
        loop = asyncio.get_running_loop()
        loop.call_soon(self._threads.submit, body_pickles.free, arrays)


def _run_in_process(function: Callable[..., R], arguments: Sequence[object]) -> R:
    # Files in memory, because reading and writing them lets other threads run.
    with (
        os.fdopen(os.memfd_create("order"), "w+b") as order,
        os.fdopen(os.memfd_create("result"), "w+b") as answer,
    ):
        pickle.dump((function, arguments), order, pickle.HIGHEST_PROTOCOL)
        order.seek(0)
        # `-P`: a file such as `numpy.py` in the current folder must not take a library's place.
        process = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM], stdin=order, stdout=answer, check=False
        )
        if process.returncode:
            raise errors.MeshError(
                f"the process for a big JSON body ended with status {process.returncode}"
            )
        answer.seek(0)
        error, result = pickle.load(answer)  # noqa: S301 only our own process writes it
    if error is not None:
        raise error
    returned: R = result
    return returned


def run_order() -> None:
    """Run the pickled function on standard input, and write its error and result: the process."""
    function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 from the worker
    error, result = None, None
    try:
        result = function(*arguments)
    except errors.MeshError as raised:
        error = raised
        if len(raised.message) > MESSAGE_CHARS_MAX:
            error = type(raised)(f"{raised.message[:MESSAGE_CHARS_MAX]} …")
    body_pickles.write((error, result), sys.stdout.buffer)


def answer_work(reply: inference.InferReply) -> tuple[int, inference.InferReply]:
    """Return the size of a reply as JSON, roughly, and the reply in a form for `run`.

    The size is below PROCESS_BYTES_MIN for a reply with objects of the model's own classes.
    """
    outputs = reply.outputs
    has_objects = inference.answer_parameters(reply) is not None
    size_bytes = 0
    for array in outputs.values():
        has_objects = has_objects or array.dtype.hasobject
        size_bytes += _text_bytes(array) if array.dtype.hasobject else array.nbytes
    if has_objects:
        # A process would have to import the model's classes. Besides, to pickle many texts holds
        # the interpreter lock for longer than to write them as JSON.
        return min(size_bytes, PROCESS_BYTES_MIN - 1), reply
    if size_bytes < PROCESS_BYTES_MIN:
        return size_bytes, reply
    # Without the classes of arrays, which may be the model's own too.
    plain = {name: np.asarray(array) for name, array in outputs.items()}
    return size_bytes, reply._replace(outputs=plain)


def _text_bytes(array: np.ndarray) -> int:
    """Return the size of texts as JSON, as if all were as long as the first ones."""
    sample = list(itertools.islice(array.flat, SAMPLED_TEXTS_MAX))
    length = sum(len(text) for text in sample if isinstance(text, (bytes, str)))
    return array.size * (length // max(1, len(sample)) + QUOTED_BYTES)

"""What a model's process does: it loads one model and answers the worker's calls.

The first connection is served by the main thread, as libraries expect it of their caller; each
further one by a thread of its own, for models that several threads may run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from meshserve.core.interfaces import model_runtime
from meshserve.logs import run_context
from meshserve.runtimes import runtime_lookup
from meshserve.worker.models import call_fields, failures, tensor_frames

logger = logging.getLogger(__name__)

Reply = tuple[dict[str, object], Mapping[str, np.ndarray]]

NO_ARRAYS: Mapping[str, np.ndarray] = {}


def serve(control: socket.socket, connection: socket.socket) -> None:
    """Answer calls until the worker closes the connection or asks for the end.

    Further connections come as file descriptors over `control`, which ends with the worker.
    """
    server = _ModelServer()
    threading.Thread(target=_accept, args=(control, server), name="accept", daemon=True).start()
    server.answer_calls(connection)


def _accept(control: socket.socket, server: _ModelServer) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            # The worker is gone. The main thread may be stuck in the model's code.
            os._exit(0)
        connection = socket.socket(fileno=descriptors[0])
        threading.Thread(target=server.answer_calls, args=(connection,), daemon=True).start()


class _ModelServer:
    """One model and the calls that it answers."""

    def __init__(self) -> None:
        self._runtime: model_runtime.Runtime | None = None
        self._loaded: model_runtime.LoadedModel | None = None
        self._told_s = -math.inf

    def answer_calls(self, connection: socket.socket) -> None:
        """Answer the calls of one connection until it ends."""
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                frame = tensor_frames.receive(connection, may_unpickle=True)
                self._answer(connection, frame)
                # The inputs must not stay in memory until the next call.
                del frame

    def _answer(self, connection: socket.socket, frame: tensor_frames.Frame) -> None:
        token = run_context.begin(run_context.RunLabels(request_id=frame.fields.get("request", "")))
        try:
            fields, arrays = self._perform(frame)
            tensor_frames.send(connection, fields, arrays)
        except BaseException as error:  # noqa: BLE001 even SystemExit of a model's code is an answer
            self._tell(error)
            # `send` refuses an answer before it sends any of it, so the error can take its place.
            tensor_frames.send(connection, call_fields.describe_error(error))
        finally:
            run_context.end(token)
            # Without the exit handlers of libraries, which may wait for what is gone.
            if frame.fields["call"] == "close":
                os._exit(0)

    def _tell(self, error: BaseException) -> None:
        """Log the error with its traceback, which the worker does not get, now and then."""
        now_s = time.monotonic()
        if now_s >= self._told_s + failures.QUIET_S:
            self._told_s = now_s
            logger.warning("the model's code has raised", exc_info=error.__cause__ or error)

    def _perform(self, frame: tensor_frames.Frame) -> Reply:
        fields = frame.fields
        match fields["call"]:
            case "predict":
                return {}, self._model.predict(_read_only(frame.arrays), fields["outputs"])
            case "predict_request":
                (details,) = call_fields.unpack(fields)
                inputs = _read_only(frame.arrays)
                answer = self._model.predict_request(inputs, fields["outputs"], details)
                return call_fields.parameters(answer), answer
            case "load":
                return self._load(*call_fields.unpack(fields))
            case "find_row_mixing":
                assert self._runtime is not None
                artifact, spec = call_fields.unpack(fields)
                return {"reason": self._runtime.find_row_mixing(self._model, artifact, spec)}, {}
            case "close":
                if self._loaded is not None:
                    self._loaded.close()
                return {}, {}
            case "offload" | "onload" as name:
                getattr(self._model, name)()
                return {}, {}
        raise AssertionError(f"a call {fields['call']!r} came, which does not exist")

    @property
    def _model(self) -> model_runtime.LoadedModel:
        assert self._loaded is not None, "the model is not loaded"
        return self._loaded

    def _load(
        self, runtime: str, artifact: model_runtime.Artifact, spec: Any, device: str
    ) -> Reply:
        self._runtime = runtime_lookup.by_name(runtime)
        self._runtime.prepare(device)
        loaded = self._loaded = self._runtime.load(artifact, spec, device)
        description = {
            "signature": {
                **dataclasses.asdict(loaded.signature),
                # JSON has no sets.
                "optional": sorted(loaded.signature.optional),
            },
            "capabilities": dataclasses.asdict(loaded.capabilities),
            "has_probe": loaded.probe is not None,
        }
        return description, loaded.probe or NO_ARRAYS


def _read_only(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays as a worker gives them to a model: it must not write to them."""
    for array in arrays.values():
        array.flags.writeable = False
    return arrays

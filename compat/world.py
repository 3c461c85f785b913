"""A mesh under test: its models, the peers' clients for it, and the right answers."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

from bench import environments
from compat import reflected

HERE = Path(__file__).parent
PROTOCOLS = ("http", "grpc")
TIMEOUT_S = 60.0
LOADED_S = 30.0

KSERVE = environments.Environment("kserve", ("kserve==0.21.0",))
MLSERVER = environments.Environment("mlserver-client", ("mlserver==1.7.1", "pandas<3", "httpx<1"))
ENVIRONMENTS = {"kserve": KSERVE, "mlserver": MLSERVER}
PROGRAMS = {"kserve": "kserve_client.py", "mlserver": "mlserver_client.py"}

Arrays = Mapping[str, np.ndarray]


@dataclass
class World:
    """A running mesh. `endpoint` is HOST:PORT, `folder` has the models.

    `facts` are answers that were computed in process when the models were made, by name.
    """

    endpoint: str
    folder: Path
    facts: Mapping[str, Any]
    _programs: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @functools.cached_property
    def http(self) -> tritonclient.http.InferenceServerClient:
        """Triton's HTTP client."""
        return tritonclient.http.InferenceServerClient(self.endpoint, network_timeout=TIMEOUT_S)

    @functools.cached_property
    def grpc(self) -> tritonclient.grpc.InferenceServerClient:
        """Triton's gRPC client."""
        return tritonclient.grpc.InferenceServerClient(self.endpoint)

    @functools.cached_property
    def rest(self) -> httpx.Client:
        """A plain HTTP client."""
        return httpx.Client(base_url=f"http://{self.endpoint}", timeout=TIMEOUT_S)

    @functools.cached_property
    def reflected(self) -> reflected.ReflectedClient:
        """A gRPC client that learns all messages from the server."""
        return reflected.ReflectedClient(self.endpoint)

    def triton(self, protocol: str) -> Any:
        """Return Triton's client for `http` or `grpc`."""
        return self.http if protocol == "http" else self.grpc

    def infer(self, protocol: str, model: str, inputs: Arrays, **more: Any) -> Any:
        """Return the result of Triton's client for inputs of any shape and dtype.

        `more` are arguments of its `infer`.
        """
        return self.triton(protocol).infer(model, given(protocol, inputs), **more)

    def ask(self, protocol: str, model: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Return all outputs of a model, of any shape and dtype, by name, by Triton's client."""
        result = self.infer(protocol, model, inputs)
        answer = result.get_response()
        outputs = answer["outputs"] if protocol == "http" else answer.outputs
        names = [spec["name"] if protocol == "http" else spec.name for spec in outputs]
        return {name: result.as_numpy(name) for name in names}

    def native(self, model: str, inputs: Arrays, version: str = "1") -> dict[str, np.ndarray]:
        """Return what ONNX Runtime answers for a model of the Triton repository, in process.

        Shapes and dtypes are the model's own.
        """
        path = self.folder / "triton" / model / version / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        # ONNX Runtime takes texts as str.
        given = {
            name: array.astype(str).astype(object) if array.dtype.hasobject else array
            for name, array in inputs.items()
        }
        return dict(zip(names, session.run(None, given), strict=True))

    def post(self, path: str, body: object) -> Any:
        """Return the JSON answer of a POST. Raises AssertionError for any status but 200."""
        answer = self.rest.post(path, json=body)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str) -> Any:
        """Return the JSON answer of a GET. Raises AssertionError for any status but 200."""
        answer = self.rest.get(path)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        return answer.json()

    def infer_json(self, model: str, *inputs: Mapping[str, Any], **more: Any) -> list[Any]:
        """Return the outputs of a V2 request in JSON, as any HTTP client sends it."""
        answer = self.post(f"/v2/models/{model}/infer", {"inputs": inputs, **more})
        outputs: list[Any] = answer["outputs"]
        return outputs

    def peer(self, library: str, method: str, **arguments: Any) -> Any:
        """Return the answer of a client that runs in an environment of its own.

        Raises AssertionError with the client's error.
        """
        program = self._programs.get(library) or self._start(library)
        assert program.stdin
        assert program.stdout
        program.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        program.stdin.flush()
        line = program.stdout.readline()
        assert line, f"the client of {library} ended"
        answer = json.loads(line)
        assert "error" not in answer, answer.get("error")
        return answer["answer"]

    def _start(self, library: str) -> subprocess.Popen[str]:
        python = environments.make_environment(ENVIRONMENTS[library])
        program_file = HERE / "peers" / PROGRAMS[library]
        command: list[str | Path] = [python, "-W", "ignore", program_file, self.endpoint]
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._programs[library] = program
        return program

    def wait_until_ready(self, model: str) -> None:
        """Wait until a model is ready. Raises AssertionError after half a minute."""
        end_s = time.monotonic() + LOADED_S
        while not self.http.is_model_ready(model):
            assert time.monotonic() < end_s, f"{model} is not ready"
            time.sleep(0.05)

    def close(self) -> None:
        """Close all clients and end their programs."""
        for client in ("http", "grpc", "rest", "reflected"):
            if client in self.__dict__:
                self.__dict__[client].close()
        for program in self._programs.values():
            # Its input is closed, which ends its loop, and its output is read to the end.
            program.communicate(timeout=TIMEOUT_S)


def given(protocol: str, inputs: Arrays) -> list[Any]:
    """Return inputs of any shape and dtype in the form of Triton's client for a protocol."""
    library = tritonclient.http if protocol == "http" else tritonclient.grpc
    tensors = []
    for name, array in inputs.items():
        tensor = library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def wanted(protocol: str, *names: str, **more: Any) -> list[Any]:
    """Return requested outputs in the form of Triton's client for `http` or `grpc`."""
    library = tritonclient.http if protocol == "http" else tritonclient.grpc
    return [library.InferRequestedOutput(name, **more) for name in names]


def tensor(name: str, datatype: str, shape: Sequence[int], data: Any, **more: Any) -> Any:
    """Return an input of a V2 request in JSON."""
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data, **more}


def same(answer: Arrays, right: Arrays) -> None:
    """Raise AssertionError unless the answer has equal names, shapes, dtypes and values."""
    assert answer.keys() == right.keys(), f"{sorted(answer)}, not {sorted(right)}"
    for name, array in right.items():
        equal(answer[name], array)


def equal(answer: np.ndarray, right: np.ndarray) -> None:
    """Raise AssertionError unless two arrays have equal shapes, dtypes and values."""
    assert answer.shape == right.shape, f"shape {answer.shape}, not {right.shape}"
    if right.dtype.kind in "OSU":
        assert [as_bytes(text) for text in answer.flat] == [as_bytes(text) for text in right.flat]
        return
    assert answer.dtype == right.dtype, f"{answer.dtype}, not {right.dtype}"
    np.testing.assert_array_equal(answer, right)


def as_bytes(text: str | bytes) -> bytes:
    """Return a text in UTF-8."""
    return text.encode() if isinstance(text, str) else text

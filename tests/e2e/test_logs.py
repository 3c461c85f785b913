"""What a model prints, logs and raises, by the id of the request that it was for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

from tests import support
from tests.e2e import asking, running

pytestmark = pytest.mark.edge

TALKER = """
import logging, os, sys, threading

class Model:
    inputs = [("x", "FP32", [-1])]
    outputs = [("y", "FP32", [-1])]

    def predict(self, inputs):
        print("printed", inputs["x"].tolist())
        sys.stderr.write("an error of theirs\\n")
        logging.getLogger("theirs").info("logged")
        thread = threading.Thread(target=lambda: print("from a thread"))
        thread.start()
        thread.join()
        os.write(1, b"native words\\n")
        if inputs["x"][0] > 9:
            raise ValueError("too much")
        return {"y": inputs["x"]}
"""


@pytest.fixture(params=["none", "process"])
def talker(mesh: running.Mesh, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """The name of a model that talks, in the worker or in a process of its own."""
    name = f"talker-{request.param}"
    (tmp_path / "model.py").write_text(TALKER)
    document = {"uri": str(tmp_path), "trust": True, "isolate": request.param}
    mesh.http.put(f"/mesh/v1/models/{name}", json=document).raise_for_status()
    yield name
    mesh.http.delete(f"/mesh/v1/models/{name}").raise_for_status()


def lines_of(mesh: running.Mesh, id_: str) -> list[str]:
    logs = [mesh.log(f"default-{number}") for number in (0, 1)]
    return [line.partition(": ")[2] for log in logs for line in log.splitlines() if id_ in line]


def test_a_request_s_lines_have_its_id(
    mesh: running.Mesh, talker: str, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    given = [asking.over_grpc("x", np.ones(1, np.float32), "FP32")]
    over_grpc.infer(talker, given, headers={"x-request-id": f"grpc-{talker}"})
    support.wait_until(lambda: len(lines_of(mesh, f"grpc-{talker}")) == 3)
    assert sorted(lines_of(mesh, f"grpc-{talker}")) == [
        "an error of theirs",
        "logged",
        "printed [1.0]",
    ]
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [10]}]}
    answer = mesh.http.post(f"/v2/models/{talker}/infer", json=body)
    made_id = answer.headers["x-request-id"]
    assert (answer.status_code, len(made_id)) == (500, 36)
    support.wait_until(lambda: any("a request failed" in line for line in lines_of(mesh, made_id)))
    shown = mesh.cli("logs", talker).stdout
    for words in ("ValueError: too much", "from a thread", "Traceback"):
        assert words in shown
    assert "native words" in mesh.cli("logs", "default").stdout
    support.wait_until(lambda: made_id in mesh.log("access"))

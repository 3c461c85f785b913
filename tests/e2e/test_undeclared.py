"""Models that say little of their tensors answer over the wire as in process, for many at once."""

from __future__ import annotations

import asyncio
import textwrap
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import tritonclient.grpc
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import meshserve
from meshserve import errors
from tests import support
from tests.e2e import asking, running

pytestmark = pytest.mark.edge

CALLERS = 16

MOODY = """
    class Model:
        def predict(self, inputs):
            x = inputs["x"]
            answer = {"y": x if (x % 1).any() else x.astype("int64")}
            if len(x) > 1:
                answer["total"] = x.sum()
            return answer
"""

SUMS = """
    import time

    class Model:
        inputs, outputs = [("x", "FP32", [-1, 2])], [("y", "FP32", [-1, 2])]

        def predict(self, inputs):
            time.sleep(0.02)
            return {"y": inputs["x"].cumsum(0)}
"""

FRAME = pd.DataFrame({"age": [20, 30, 40, 50], "city": ["a", "b", "a", "b"]})
ALIASES = [f"sums-{number}" for number in range(8)]


class Scaled(torch.nn.Module):
    """Takes a tensor, and perhaps a mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        if mask is not None:
            x = x * mask
        return {"y": self.layer(x)}


def pipeline() -> Any:
    parts = [("o", OneHotEncoder(), ["city"]), ("s", StandardScaler(), ["age"])]
    encoder = ColumnTransformer(parts)
    return make_pipeline(encoder, LogisticRegression()).fit(FRAME, [0, 1, 1, 0])


def saved(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the models; return their entries by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Scaled().eval()), folder / "scripted.pt")
    joblib.dump(pipeline(), folder / "people.joblib")
    (folder / "moody.py").write_text(textwrap.dedent(MOODY))
    (folder / "sums.py").write_text(textwrap.dedent(SUMS))
    return {
        "program": {"uri": str(folder / "scripted.pt")},
        "people": {"uri": str(folder / "people.joblib"), "trust": True},
        "changing": {"uri": str(folder / "moody.py"), "trust": True},
        "sums": {"uri": str(folder / "sums.py"), "trust": True, "batching": True},
    }


@pytest.fixture(scope="module", autouse=True)
def _models(mesh: running.Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    entries = saved(tmp_path_factory.mktemp("undeclared"))
    for name, entry in entries.items():
        mesh.http.put(f"/mesh/v1/models/{name}", json=entry).raise_for_status()
    yield
    for alias in ALIASES:
        mesh.http.delete(f"/mesh/v1/aliases/{alias}")
    for name in entries:
        mesh.http.delete(f"/mesh/v1/models/{name}").raise_for_status()


def test_a_scripted_program_answers_many_callers_as_in_process(mesh: running.Mesh) -> None:
    module = Scaled().eval()
    rows = np.random.default_rng(0).standard_normal((CALLERS, 4)).astype(np.float32)

    def is_right(number: int) -> bool:
        x = rows[: number + 1]
        with torch.inference_mode():
            right = module(torch.from_numpy(x), torch.from_numpy(x[:1]))["y"].numpy()
        asked: Any = {"mask": x[:1], "x": x}
        answers: Any = [client.predict("program", asked) for _ in range(5)]
        return all(np.allclose(answer, right, rtol=1e-6, atol=1e-6) for answer in answers)

    with meshserve.Client(mesh.listen) as client, ThreadPoolExecutor(CALLERS) as callers:
        assert client.metadata("program").has_loose_inputs
        assert all(callers.map(is_right, range(CALLERS)))
        with pytest.raises(errors.InvalidRequest, match="no input 'z'; it has: x, mask"):
            client.predict("program", {"z": rows})
    predicted = mesh.http.post("/v1/models/program:predict", json={"instances": [[0.5] * 4]})
    assert len(predicted.raise_for_status().json()["predictions"][0]) == 3


def test_each_answer_has_its_own_outputs_and_datatypes(
    mesh: running.Mesh, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    def is_right(number: int) -> bool:
        x = np.full(1 + number % 2, number + 0.5 * (number % 3))
        answer = over_grpc.infer("changing", [asking.over_grpc("x", x, "FP64")])
        given = {output.name: output.datatype for output in answer.get_response().outputs}
        right = {"y": "INT64" if number % 3 == 0 or x[0] % 1 == 0 else "FP64"}
        if len(x) > 1:
            right["total"] = "FP64"
        return given == right and answer.as_numpy("y").tolist() == x.tolist()

    with ThreadPoolExecutor(CALLERS) as callers:
        assert all(callers.map(is_right, range(6 * CALLERS)))
    metadata = mesh.http.get("/v2/models/changing").raise_for_status().json()
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["x"]
    assert sorted(tensor["name"] for tensor in metadata["outputs"]) == ["total", "y"]


def test_a_data_frame_is_answered_as_its_own_library_does(mesh: running.Mesh) -> None:
    right = pipeline().predict_proba(FRAME)

    async def ask() -> Any:
        async with meshserve.AsyncClient(mesh.listen) as client:
            return await client.predict("people", FRAME, outputs=["predict_proba"])

    with meshserve.Client(mesh.listen) as client:
        np.testing.assert_array_equal(
            client.predict("people", FRAME, outputs=["predict_proba"]), right
        )
        with pytest.raises(errors.InvalidRequest, match="column 'age' takes numbers, BYTES came"):
            client.predict("people", FRAME.assign(age=["x"] * 4))
        with pytest.raises(errors.InvalidRequest, match=r"column 'city' has a gap \(null\)"):
            client.predict("people", FRAME.assign(city=["a", None, "b", "a"]))
        with pytest.raises(errors.InvalidRequest, match="holds datetime64"):
            client.predict("people", FRAME.assign(age=pd.to_datetime(["2024-01-01"] * 4)))
    np.testing.assert_array_equal(asyncio.run(ask()), right)


def test_joining_that_stops_on_one_worker_stops_on_all(mesh: running.Mesh) -> None:
    for alias in ALIASES:
        mesh.http.put(f"/mesh/v1/aliases/{alias}", json={"model": "sums"}).raise_for_status()
    one = np.ones((1, 2), np.float32)

    def is_right(name: str) -> bool:
        return bool(np.array_equal(np.asarray(client.predict(name, one)), one))

    def stops() -> dict[str, str]:
        return {
            stop["worker"]: stop["reason"]
            for stop in mesh.status()["joins_stopped"]
            if stop["model"] == "sums"
        }

    with meshserve.Client(mesh.listen) as client, ThreadPoolExecutor(CALLERS) as callers:
        # Each alias has a home of its own, and so both workers have a copy.
        assert all(map(is_right, ALIASES))
        assert all(callers.map(is_right, ["sums"] * 3 * CALLERS))
        support.wait_until(lambda: len(stops()) == 2, 60, "both workers join no more")
        assert len(set(stops().values())) == 1
        assert all(callers.map(is_right, ALIASES * 4))

"""A model in a process of its own keeps every promise of a loaded model, whatever its runtime."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.runtimes import runtime_lookup
from meshserve.testing import runtime_suite
from meshserve.worker.models import isolated_model, process_launcher
from tests.runtimes import contract
from tests.worker.models import samples

DETAILED = """
import numpy as np
from meshserve.core.interfaces.model_runtime import AnswerTensors as Answer

class Model:
    inputs = [("x", "FP32", [-1])]
    outputs = [("y", "FP32", [-1])]

    def predict(self, inputs, request):
        if request.id == "odd":
            return Answer({"y": inputs["x"]}, {"bad": {1, 2}})
        own = {"id": request.id, "k": request.parameters.get("k"), "n": np.int64(3),
               "inf": float("inf"), "agent": request.headers.get("user-agent")}
        return Answer({"y": inputs["x"] * 2}, own, {"y": {"unit": "m"}})
"""
RAISING = """
class Model:
    inputs = [("x", "INT64", [-1])]
    outputs = [("y", "INT64", [-1])]

    def predict(self, inputs):
        kind = inputs["x"].flat[0]
        if kind == 701: raise KeyboardInterrupt("stop")
        if kind == 702: raise SystemExit(3)
        if kind == 703: raise GeneratorExit
        if kind == 704: raise OSError("disk")
        if kind == 705: return {"y": inputs["y"]}
        if kind == 706: raise EOFError
        return {"y": inputs["x"]}

    def close(self):
        raise ValueError("can't close")
"""
SLOW = """
import time

class Model:
    inputs = [("x", "INT64", [-1])]
    outputs = [("y", "INT64", [-1])]

    def predict(self, inputs):
        while inputs["x"].flat[0] == 700:
            pass
        return {"y": inputs["x"]}
"""


@pytest.fixture(scope="module")
def launcher() -> Iterator[process_launcher.ProcessLauncher]:
    launcher = process_launcher.ProcessLauncher(lambda _: None)
    yield launcher
    launcher.close()


@pytest.fixture(scope="module", params=samples.MAKERS, ids=lambda maker: maker.__name__)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return request.param(tmp_path_factory.mktemp("isolated"))


def isolated(
    launcher: process_launcher.ProcessLauncher, runtime: str, **limits: Any
) -> isolated_model.IsolatedRuntime:
    return isolated_model.IsolatedRuntime(
        runtime_lookup.by_name(runtime), launcher, "key", **limits
    )


def load_code(
    launcher: process_launcher.ProcessLauncher, folder: Path, source: str, **limits: Any
) -> model_runtime.LoadedModel:
    (folder / "model.py").write_text(source)
    spec = contract.spec(trust=True)
    return isolated(launcher, "python", **limits).load(contract.artifact(folder), spec, "cpu")


@pytest.mark.parametrize("check", runtime_suite.CHECKS, ids=lambda check: check.__name__)
def test_the_shipped_suite_passes(
    launcher: process_launcher.ProcessLauncher, sample: contract.Sample, check: Any
) -> None:
    check(
        runtime_suite.make_case(
            isolated(launcher, sample.runtime),
            contract.artifact(sample.path),
            contract.spec(**sample.fields),
            sample.rows,
        )
    )


def test_answers_signature_and_proof_are_those_of_the_worker_s_own_process(
    launcher: process_launcher.ProcessLauncher, sample: contract.Sample
) -> None:
    own_runtime = runtime_lookup.by_name(sample.runtime)
    runtime = isolated(launcher, sample.runtime)
    artifact, spec = contract.artifact(sample.path), contract.spec(**sample.fields)
    own_runtime.prepare("cpu")
    own, loaded = own_runtime.load(artifact, spec, "cpu"), runtime.load(artifact, spec, "cpu")
    assert loaded.signature == own.signature
    assert loaded.capabilities.is_reentrant == own.capabilities.is_reentrant
    expected, answer = own.predict(sample.rows, ()), loaded.predict(sample.rows, ())
    assert answer.keys() == expected.keys() == sample.answers.keys()
    for name in expected:
        assert answer[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(answer[name], expected[name])
        np.testing.assert_array_equal(answer[name], sample.answers[name])
    assert runtime.find_row_mixing(loaded, artifact, spec) == own_runtime.find_row_mixing(
        own, artifact, spec
    )
    own.close()
    loaded.close()


def test_a_model_sees_its_request_and_answers_with_parameters(
    launcher: process_launcher.ProcessLauncher, tmp_path: Path
) -> None:
    source = DETAILED.replace(
        "import numpy",
        "from meshserve.core.interfaces.model_runtime import AnswerTensors as Answer\nimport numpy",
    )
    loaded = load_code(launcher, tmp_path, source)
    assert loaded.capabilities.needs_details
    details = model_runtime.RequestDetails(
        id="7", parameters={"k": 1.5}, headers={"user-agent": "curl"}
    )
    rows = {"x": np.array([1.0, 2.0], np.float32)}
    answer = loaded.predict_request(rows, (), details)
    assert isinstance(answer, model_runtime.AnswerTensors)
    np.testing.assert_array_equal(answer["y"], [2.0, 4.0])
    assert answer.parameters == {"id": "7", "k": 1.5, "n": 3, "inf": float("inf"), "agent": "curl"}
    assert answer.output_parameters == {"y": {"unit": "m"}}
    with pytest.raises(errors.ModelRaised, match="a parameter is a set"):
        loaded.predict_request(rows, (), model_runtime.RequestDetails(id="odd"))
    loaded.close()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (1, "stop"),
        (2, "SystemExit: 3"),
        (3, "GeneratorExit"),
        (4, "OSError: disk"),
        (5, "KeyError: 'y'"),
        (6, "EOFError"),
    ],
)
def test_whatever_a_model_raises_is_an_answer(
    launcher: process_launcher.ProcessLauncher, tmp_path: Path, kind: int, words: str
) -> None:
    loaded = load_code(launcher, tmp_path, RAISING)
    with pytest.raises(errors.ModelRaised, match=words):
        loaded.predict({"x": np.array([700 + kind])}, ())
    np.testing.assert_array_equal(loaded.predict({"x": np.array([8])}, ())["y"], [8])
    with pytest.raises(errors.ModelRaised, match="can't close"):
        loaded.close()
    process = loaded._process  # type: ignore[attr-defined]
    assert str(process.death).endswith("exit code 0")


def test_calls_side_by_side_are_not_mixed_up(
    launcher: process_launcher.ProcessLauncher, tmp_path: Path
) -> None:
    loaded = load_code(launcher, tmp_path, SLOW)
    wrong: list[int] = []

    def ask(number: int) -> None:
        for step in range(50):
            value = 1000 * number + step + 800
            if loaded.predict({"x": np.full(number + 1, value)}, ())["y"].tolist() != [value] * (
                number + 1
            ):
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    loaded.close()


def test_a_load_over_its_time_limit_ends_the_process(
    launcher: process_launcher.ProcessLauncher, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text("import time\ntime.sleep(600)")
    runtime = isolated(launcher, "python")
    spec = contract.spec(trust=True, load_timeout_s=0.2)
    with pytest.raises(errors.LoadFailed, match="its process was stopped"):
        runtime.load(contract.artifact(tmp_path), spec, "cpu")
    assert runtime.process is not None
    assert runtime.process.death is not None


def test_a_missing_library_is_told_as_in_the_worker(
    launcher: process_launcher.ProcessLauncher, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text("import no_such_library")
    with pytest.raises(errors.LoadFailed, match="No module named 'no_such_library'"):
        isolated(launcher, "python").load(
            contract.artifact(tmp_path), contract.spec(trust=True), "cpu"
        )
    with pytest.raises(errors.LoadFailed, match="set trust: true"):
        isolated(launcher, "python").load(contract.artifact(tmp_path), contract.spec(), "cpu")


LEARNED = """
class Model:
    inputs = [("x", "INT64", [-1])]

    def predict(self, inputs):
        if inputs["x"][0] != 77: raise ValueError("not 77")
        return {"y": inputs["x"] * 1.5}
"""


def test_outputs_that_made_up_inputs_did_not_show_are_answered(
    launcher: process_launcher.ProcessLauncher, tmp_path: Path
) -> None:
    loaded = load_code(launcher, tmp_path, LEARNED)
    assert not loaded.signature.outputs
    assert loaded.predict({"x": np.array([77])}, ())["y"].tolist() == [115.5]
    loaded.close()

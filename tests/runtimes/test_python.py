from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from tests.runtimes import contract

DOUBLE = """
    import numpy as np

    class Model:
        inputs = [("x", "FP64", [-1, 3])]
        batchable = True

        def predict(self, inputs):
            x = inputs["x"]
            names = ["many" if row.sum() > 3 else "few" for row in x]
            return {"double": 2 * x, "name": np.array(names)}
"""

X = (model.TensorSpec("x", "FP64", (-1, 3)),)


def written(folder: Path, source: str, name: str = "model.py") -> Any:
    path = folder / name
    path.write_text(textwrap.dedent(source))
    return path


def load(folder: Path, source: str, **fields: Any) -> Any:
    return contract.load(written(folder, source), trust=True, **fields)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = written(tmp_path_factory.mktemp("python"), DOUBLE)
    rows = np.arange(12.0).reshape(4, 3)
    answers = {
        "double": 2 * rows,
        "name": np.array([b"few", b"many", b"many", b"many"], dtype=object),
    }
    return contract.Sample("python", path, {"x": rows}, answers, {"trust": True})


class TestContract(contract.RuntimeContract):
    """A user's own class."""


def test_code_must_be_trusted(sample: contract.Sample) -> None:
    with pytest.raises(errors.LoadFailed, match=r"model\.py is code: set trust: true"):
        sample.load(trust=False)


def test_the_constructor_gets_the_folder_and_the_user_s_options(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("5")
    source = """
        class Scale:
            inputs, outputs = [("x", "FP64", [-1])], [("y", "FP64", [-1])]
            def __init__(self, path, options):
                self.by = float((path / "weights.txt").read_text()) + options["plus"]
            def predict(self, inputs):
                return inputs["x"] * self.by
    """
    loaded = load(tmp_path, source, options={"class": "Scale", "plus": 1})
    assert loaded.predict({"x": np.array([2.0])}, ())["y"].tolist() == [12.0]
    assert not loaded.signature.can_join


def test_a_single_array_is_the_only_output(tmp_path: Path) -> None:
    source = "class Model:\n    def predict(self, inputs):\n        return inputs['x'].sum(1)\n"
    assert load(tmp_path, source, inputs=X).signature.outputs == (
        model.TensorSpec("output", "FP64", (-1,)),
    )
    total = (model.TensorSpec("total", "FP64", (-1,)),)
    loaded = load(tmp_path, source, inputs=X, outputs=total)
    assert loaded.predict({"x": np.ones((1, 3))}, ["total"])["total"].tolist() == [3.0]


def test_two_models_of_the_same_file_name_don_t_share_anything(tmp_path: Path) -> None:
    loaded = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        written(folder, f"VALUE = {number}\n", "constants.py")
        source = """
            from .constants import VALUE
            class Model:
                inputs = [("x", "FP64", [-1])]
                def predict(self, inputs):
                    return inputs["x"] * VALUE
        """
        loaded.append(load(folder, source))
    assert [copy.predict({"x": np.ones(1)}, ())["output"].item() for copy in loaded] == [1, 2]


def test_closing_calls_the_user_s_close_and_forgets_his_modules(tmp_path: Path) -> None:
    source = """
        class Model:
            inputs = [("x", "FP64", [-1])]
            def __init__(self, path, options):
                self.path = path
            def predict(self, inputs):
                return inputs["x"]
            def close(self):
                (self.path / "closed").touch()
    """
    before = set(sys.modules)
    load(tmp_path, source).close()
    assert (tmp_path / "closed").exists()
    assert not {name for name in set(sys.modules) - before if name.startswith("meshserve_model_")}


def test_nothing_is_written_beside_the_model(sample: contract.Sample, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_bytes(sample.path.read_bytes())
    contract.load(path, trust=True).close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.py"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("class Model:\n  def predict(self)\n", r"model\.py:2: SyntaxError"),
        ("import numpy\n1 / 0\n", r"model\.py:2: ZeroDivisionError: division by zero"),
        (
            "import no_such_thing\n",
            r"model\.py:1: ModuleNotFoundError: .*no_such_thing.*must be installed",
        ),
        ("raise SystemExit(3)\n", r"model\.py:1: SystemExit: 3"),
        ("class Modell: pass\n", r"no class 'Model'; did you mean 'Modell'"),
        ("class Model: pass\n", r"no method predict"),
        (
            "class Model:\n  inputs = ['x']\n  def predict(self, inputs): pass\n",
            r"inputs must be a list of \(name, datatype, shape\)",
        ),
        (
            "class Model:\n  inputs = [('x', 'FLOAT', [1])]\n  def predict(self, inputs): pass\n",
            r"'FLOAT', which does not exist",
        ),
        (
            (
                "class Model:\n  def __init__(self):\n    raise KeyError('k')\n"
                "  def predict(self, inputs): pass\n"
            ),
            r"model\.py:3: KeyError: 'k'",
        ),
        (
            (
                "class Model:\n  inputs = [('x', 'FP64', [1])]\n"
                "  def predict(self, inputs):\n    return missing\n"
            ),
            r"model\.py:4: NameError",
        ),
        (
            (
                "class Model:\n  inputs = [('x', 'FP64', [1])]\n"
                "  def predict(self, inputs):\n    return 1j * inputs['x']\n"
            ),
            r"complex128",
        ),
    ],
)
def test_errors_have_file_and_line(tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(errors.LoadFailed, match=reason) as failed:
        load(tmp_path, source)
    assert "Traceback" not in failed.value.message
    assert not {
        name
        for name in sys.modules
        if name.startswith("meshserve_model_")
        and sys.modules[name].__file__ == str(tmp_path / "model.py")
    }


PICKY = """
    class Model:
        inputs, outputs = [("x", "FP64", [-1])], [("y", "FP64", [-1]), ("z", "INT64", [-1])]
        batchable = True
        def predict(self, inputs):
            x = inputs["x"]
            if (x < 2).any():
                raise ValueError("below two")
            return {"y": x} if x.sum() > 100 else {"y": x, "z": x}
"""


def test_a_model_that_refuses_made_up_inputs_is_believed_if_it_declares_its_outputs(
    tmp_path: Path,
) -> None:
    loaded = load(tmp_path, PICKY)
    assert loaded.probe is None
    assert loaded.signature.can_join
    assert loaded.predict({"x": np.array([3.0])}, ["y"])["y"].tolist() == [3.0]


def test_outputs_are_open_if_made_up_inputs_are_refused(
    tmp_path: Path,
) -> None:
    source = """
class Model:
    inputs = [("word", "BYTES", [-1])]

    def predict(self, inputs):
        table = {b"dog": 1.5, b"cat": 2.5}
        return {"y": [table[word] for word in inputs["word"]]}
"""
    loaded = load(tmp_path, source)
    assert loaded.signature.outputs == ()
    with pytest.raises(errors.ModelRaised, match=r"model\.py:7: KeyError: b'bird'$"):
        loaded.predict({"word": np.array([b"bird"], object)}, ())
    answer = loaded.predict({"word": np.array([b"cat"], object)}, ())
    assert answer["y"].tolist() == [2.5]
    assert loaded.signature.has_open_outputs
    sampled = load(tmp_path, source, sample='{"word": ["dog", "cat", "dog"]}')
    assert sampled.signature.outputs == (model.TensorSpec("y", "FP64", (-1,)),)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1.0, r"model\.py:8: ValueError: below two"),
        (3.0, "returned float64 for 'z', which is declared INT64"),
        (500.0, "did not return 'z'"),
    ],
)
def test_errors_of_a_prediction_are_the_model_s_fault(
    tmp_path: Path, value: Any, reason: str
) -> None:
    loaded = load(tmp_path, PICKY)
    with pytest.raises(errors.ModelRaised, match=reason):
        loaded.predict({"x": np.array([value])}, ())


@pytest.mark.parametrize(
    "raised",
    [
        "KeyboardInterrupt('^C')",
        "GeneratorExit()",
        "asyncio.CancelledError()",
        "SystemExit(3)",
        # An error whose message raises when it is read.
        "type('Unspeakable', (Exception,), {'__str__': lambda self: 1 / 0})()",
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_errors_that_end_programs_are_the_model_s_fault_too(
    tmp_path: Path, raised: str, kind: str
) -> None:
    source = PICKY.replace("ValueError(", f"{raised} if True else ValueError(")
    source = source.replace("def predict", f"{kind} predict")
    loaded = load(tmp_path, f"import asyncio\n{textwrap.dedent(source)}")
    with pytest.raises(errors.ModelRaised, match=raised_name(raised)):
        loaded.predict({"x": np.array([1.0])}, ())


def raised_name(raised: str) -> str:
    is_own = raised.startswith("type(")
    return "Unspeakable" if is_own else raised.removeprefix("asyncio.").split("(")[0]


def test_meshserve_s_own_errors_pass_through(tmp_path: Path) -> None:
    source = PICKY.replace(
        "raise ValueError", "from meshserve import errors; raise errors.InvalidRequest"
    )
    with pytest.raises(errors.InvalidRequest, match="below two"):
        load(tmp_path, source).predict({"x": np.array([0.0])}, ())


def test_claimed_batching_that_rows_contradict_is_off(tmp_path: Path) -> None:
    source = DOUBLE.replace("2 * x", "x - x.mean(0)")
    assert not load(tmp_path, source).signature.can_join


def test_a_lone_file_beside_another_kind_of_model_is_not_the_model(tmp_path: Path) -> None:
    written(tmp_path, DOUBLE, "tools.py")
    (tmp_path / "weights.pt").touch()
    with pytest.raises(errors.LoadFailed, match=r"weights\.pt. is empty"):
        contract.load(tmp_path, trust=True).close()
    (tmp_path / "weights.pt").unlink()
    contract.load(tmp_path, trust=True).close()


def test_bf16_is_declared_of_its_bits(tmp_path: Path) -> None:
    source = """
        class Model:
            inputs, outputs = [("x", "BF16", [-1])], [("y", "BF16", [-1])]
            def predict(self, inputs):
                return inputs["x"]
    """
    loaded = load(tmp_path, source)
    assert loaded.signature.outputs[0].datatype == "BF16"
    assert loaded.predict({"x": np.array([16256], np.uint16)}, ())["y"].tolist() == [16256]


def test_a_class_names_the_inputs_that_may_be_left_out(tmp_path: Path) -> None:
    source = """
        class Model:
            inputs = [("x", "FP32", [2]), ("mask", "FP32", [2])]
            outputs = [("y", "FP32", [2])]
            optional_inputs = ["mask"]

            def predict(self, inputs):
                return {"y": inputs["x"] * inputs.get("mask", 2)}
    """
    loaded = load(tmp_path, source)
    assert loaded.signature.optional == {"mask"}
    x = np.array([1, 3], np.float32)
    np.testing.assert_array_equal(loaded.predict({"x": x}, ())["y"], [2, 6])
    np.testing.assert_array_equal(loaded.predict({"x": x, "mask": x}, ())["y"], [1, 9])
    with pytest.raises(errors.LoadFailed, match="'maks' does not exist"):
        load(tmp_path, source.replace('optional_inputs = ["mask"]', 'optional_inputs = ["maks"]'))


SEES = """
    class Model:
        inputs = [("x", "FP32", [-1])]
        batchable = True
        async def predict(self, inputs, request):
            self.seen = request
            scale = request.parameters.get("scale", 1)
            return {"y": inputs["x"] * scale, "id": [request.id.encode()] * len(inputs["x"])}
"""


def test_a_class_sees_the_request_that_it_answers(tmp_path: Path) -> None:
    loaded = load(tmp_path, SEES)
    assert loaded.capabilities.needs_details
    assert not loaded.signature.can_join
    details = model_runtime.RequestDetails(id="a", parameters={"scale": 3})
    answer = loaded.predict_request({"x": np.ones(2, np.float32)}, ("y", "id"), details)
    assert answer["y"].tolist() == [3, 3]
    assert answer["id"].tolist() == [b"a", b"a"]
    loaded.close()


@pytest.mark.parametrize("predict", ["self, inputs", "self, inputs, scale=1", "self, *inputs"])
def test_a_class_that_does_not_ask_sees_nothing(tmp_path: Path, predict: str) -> None:
    source = f"""
        class Model:
            inputs = [("x", "FP32", [-1])]
            def predict({predict}):
                return inputs["x"] if isinstance(inputs, dict) else inputs[0]["x"]
    """
    loaded = load(tmp_path, source)
    assert not loaded.capabilities.needs_details
    assert loaded.predict({"x": np.ones(2, np.float32)}, ())["output"].tolist() == [1, 1]


BUFFERED = """
    import numpy as np

    class Model:
        inputs = [("x", "FP64", [-1, 3])]

        def __init__(self):
            self.buffer = np.zeros((64, 3))

        def predict(self, inputs):
            answer = self.buffer[:len(inputs["x"])]
            np.multiply(inputs["x"], 2, out=answer)
            return {"whole": answer, "part": answer[:, 0]}
"""


def test_an_answer_stays_when_the_class_uses_its_buffer_again(tmp_path: Path) -> None:
    loaded = load(tmp_path, BUFFERED)
    first = loaded.predict({"x": np.ones((2, 3))}, ())
    loaded.predict({"x": np.full((2, 3), 5.0)}, ())
    assert first["whole"].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert first["part"].tolist() == [2, 2]


def test_a_class_may_change_its_inputs(tmp_path: Path) -> None:
    source = """
        class Model:
            inputs = [("x", "FP64", [-1, 3])]
            def predict(self, inputs):
                x = inputs["x"]
                x[x < 0] = 0
                return {"y": x}
    """
    loaded = load(tmp_path, source)
    received = np.array([[-1.0, 2.0, -3.0]])
    received.flags.writeable = False
    assert loaded.predict({"x": received}, ())["y"].tolist() == [[0, 2, 0]]
    assert received.tolist() == [[-1, 2, -3]]


def test_a_class_that_returns_nothing_is_refused(tmp_path: Path) -> None:
    source = "class Model:\n    def predict(self, inputs):\n        inputs['x'].sum(1)\n"
    with pytest.raises(errors.LoadFailed, match="None where a tensor belongs"):
        load(tmp_path, source, inputs=X)

"""MLServer: its documented requests, its codecs, its command line, its model classes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np

from bench import environments
from compat import cases, tabular_models, triton_examples, world

PEER = "MLServer"
NEEDS = "mlserver"
TRANSPORTS = ("rest", "grpc")
CLOSE = 1e-5
CLI_S = 120


def close(answer: Any, right: Any) -> None:
    """Raise AssertionError unless numbers are equal up to rounding to float32."""
    given, expected = np.asarray(answer, float).squeeze(), np.asarray(right, float).squeeze()
    assert given.shape == expected.shape, f"shape {given.shape}, not {expected.shape}"
    np.testing.assert_allclose(given, expected, rtol=CLOSE, atol=CLOSE)


EXAMPLES = {
    "mnist-svm": ("predict", "digits", "digits/predict"),
    "mushroom-xgboost": ("predict", "mushrooms", "mushrooms/xgboost"),
    "iris-lgb": ("predict-prob", "iris", "iris/lightgbm"),
}
"""By model: the input's documented name, the facts of the rows and of the right answers."""


def _documented(asked: world.World, model: str) -> tuple[dict[str, Any], Any]:
    name, rows, right = EXAMPLES[model]
    given = asked.facts[rows]
    tensor = world.tensor(name, "FP32", [len(given), len(given[0])], given)
    return tensor, asked.facts[right]


@cases.swept(PEER, "documented requests", "docs/examples/{sklearn,xgboost,lightgbm}", EXAMPLES)
def requests_of_the_readmes(asked: world.World, model: str) -> None:
    """The README's request, with its path of a version."""
    tensor, right = _documented(asked, model)
    path = f"/v2/models/{model}/versions/{tabular_models.VERSION}/infer"
    answer = asked.post(path, {"inputs": [tensor]})
    close(answer["outputs"][0]["data"], np.ravel(right))
    assert answer["outputs"][0]["name"] == "predict"
    assert answer["model_version"] == tabular_models.VERSION


@cases.swept(PEER, "documented requests", "docs/examples over gRPC, typed contents", EXAMPLES)
def typed_requests_have_typed_answers(asked: world.World, model: str) -> None:
    """MLServer answers typed contents by typed contents."""
    tensor, right = _documented(asked, model)
    request = triton_examples.explicit(model, "fp32_contents", "FP32")
    entry = request.inputs.add(name=tensor["name"], datatype="FP32", shape=tensor["shape"])
    entry.contents.fp32_contents.extend(np.ravel(tensor["data"]))
    answer = triton_examples.stub_of(asked).ModelInfer(request)
    assert not answer.raw_output_contents
    contents = answer.outputs[0].contents
    (_, values), *_ = contents.ListFields()
    close(list(values), np.ravel(right))


@cases.case(PEER, "codecs", "docs/user-guide/content-type.md: numpy", NEEDS)
def matrices_by_codec(asked: world.World) -> None:
    """NumpyRequestCodec's requests over both protocols; the answer decodes by NumpyCodec."""
    for model, (_, rows, right) in EXAMPLES.items():
        for over in TRANSPORTS:
            for dtype in ("float32", "float64"):
                answer = asked.peer(
                    NEEDS, "numpy", model=model, rows=asked.facts[rows], dtype=dtype, over=over
                )
                close(answer["predict"], asked.facts[right])


@cases.case(PEER, "codecs", "docs/examples/*: NumpyCodec.encode_input", NEEDS)
def named_matrices_by_codec(asked: world.World) -> None:
    """The same under the documented name."""
    for model, (name, rows, right) in EXAMPLES.items():
        for over in TRANSPORTS:
            answer = asked.peer(
                NEEDS, "named", model=model, name=name, rows=asked.facts[rows], over=over
            )
            close(answer["predict"], asked.facts[right])


@cases.case(PEER, "codecs", "docs/user-guide/content-type.md: pandas", NEEDS)
def data_frames_by_codec(asked: world.World) -> None:
    """A data frame by PandasCodec reaches a pipeline that needs one."""
    for over in TRANSPORTS:
        answer = asked.peer(NEEDS, "frame", model="mixed", row=asked.facts["houses"], over=over)
        close(answer["predict"], asked.facts["houses/predict"])


@cases.case(PEER, "management", "openapi/model_repository.yaml, docs/user-guide", NEEDS)
def repository_and_metadata(asked: world.World) -> None:
    """Index and metadata in MLServer's types."""
    answer = asked.peer(NEEDS, "management", model="mnist-svm")
    assert set(EXAMPLES) <= set(answer["names"])
    assert answer["grpc"][0] == answer["rest"] == "mnist-svm"
    assert answer["ready"]


@cases.case(PEER, "model classes", "docs/examples/custom-json", NEEDS)
def texts_for_a_class(asked: world.World) -> None:
    """A class of MLServer's that decodes and encodes itself, over both protocols."""
    for over in TRANSPORTS:
        text = json.dumps({"name": "Foo", "n": [1, 2]})
        answer = asked.peer(
            NEEDS, "texts", model="hello", name="echo_request", text=text, over=over
        )
        assert answer["id"] == "7"
        said = json.loads(answer["texts"][0])
        assert said == {"asked": {"echo_request": json.loads(text)}, "said": "Hello"}


@cases.case(PEER, "model classes", "docs/examples/custom-json: no inputs are declared")
def a_class_without_declared_inputs(asked: world.World) -> None:
    """Settings need not say what a class takes and gives."""
    tensor = world.tensor("echo_request", "BYTES", [1], ['{"a": 1}'])
    (output,) = asked.infer_json("bare-hello", tensor)
    assert json.loads(output["data"][0])["asked"] == {"echo_request": {"a": 1}}


@cases.case(PEER, "model classes", "docs/examples/custom")
def a_class_with_decoded_arguments(asked: world.World) -> None:
    """`decode_args` and `get_model_uri`."""
    inputs = [
        world.tensor("age", "FP64", [2], [1, 2]),
        world.tensor("marriage", "FP64", [2], [10, 20]),
    ]
    (output,) = asked.infer_json("factors", *inputs)
    assert output["data"] == [12.5, 25.0]


@cases.case(PEER, "documented requests", "docs/user-guide/content-type.md: parameters")
def content_types(asked: world.World) -> None:
    """Content types of request and tensors are taken."""
    tensor, right = _documented(asked, "mnist-svm")
    tensor["parameters"] = {"content_type": "np"}
    (output,) = asked.infer_json("mnist-svm", tensor, parameters={"content_type": "np"})
    assert output["data"] == right


@cases.case(PEER, "documented requests", "docs/runtimes/sklearn.md: model outputs")
def probabilities(asked: world.World) -> None:
    """Outputs are asked for by name."""
    rows = asked.facts["iris"]
    tensor = world.tensor("predict", "FP32", [2, 4], rows)
    outputs = asked.infer_json(
        "sklearn-iris", tensor, outputs=[{"name": "predict_proba"}, {"name": "predict"}]
    )
    named = {output["name"]: output for output in outputs}
    close(named["predict_proba"]["data"], np.ravel(asked.facts["iris/sklearn/probabilities"]))
    assert named["predict"]["data"] == asked.facts["iris/sklearn"]


def _infer_by_cli(asked: world.World, *options: str) -> None:
    """Run `mlserver infer` over a file of requests and compare its file of answers."""
    given, written = asked.folder / "requests.txt", asked.folder / "answers.txt"
    rows = asked.facts["digits"]
    lines = []
    for row in rows:
        tensor = world.tensor("predict", "FP32", [1, len(row)], row)
        lines.append(json.dumps({"inputs": [tensor]}))
    given.write_text("\n".join(lines) + "\n")
    python = environments.make_environment(world.MLSERVER)
    program, paths = python.with_name("mlserver"), ("-i", given, "-o", written)
    command = [program, "infer", "-u", asked.endpoint, "-m", "mnist-svm", *paths, *options]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=CLI_S, check=False
    )
    assert not done.returncode, done.stderr[-300:]
    answers = [json.loads(line) for line in written.read_text().splitlines()]
    labels = {
        int(answer["parameters"]["batch_index"]): answer["outputs"][0]["data"][0]
        for answer in answers
    }
    assert [labels[index] for index in sorted(labels)] == asked.facts["digits/predict"], labels


@cases.case(PEER, "command line", "docs/examples/batching: mlserver infer", NEEDS)
def one_request_for_each_line(asked: world.World) -> None:
    """`mlserver infer` with its defaults."""
    _infer_by_cli(asked)


@cases.case(PEER, "command line", "docs/examples/batching: mlserver infer -s", NEEDS)
def micro_batches(asked: world.World) -> None:
    """`mlserver infer` that joins lines to one request."""
    _infer_by_cli(asked, "--batch-size", "3")


@cases.case(PEER, "command line", "docs/examples/batching: mlserver infer -b", NEEDS)
def binary_lines(asked: world.World) -> None:
    """`mlserver infer` with binary tensors."""
    _infer_by_cli(asked, "--binary-data", "--workers", "2")

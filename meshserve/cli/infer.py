"""`meshserve infer`: one prediction from the command line."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import numpy as np
import typer
from rich.console import Console

from meshserve import client, errors
from meshserve.cli import input_values, mesh, terminal
from meshserve.client import arrays
from meshserve.core.values import model as core

command = typer.Typer(add_completion=False)

SHOWN_MAX = 200


class InferCommand(NamedTuple):
    """One prediction, as it was asked for."""

    model: str
    version: str
    inputs: arrays.Inputs


@command.command("infer")
def infer(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model's name, or an alias of it.")
    ],
    given: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE | FILE | -",
            help="NAME=[[1, 2]], NAME=@rows.npy, or a JSON file with all inputs (- reads stdin).",
        ),
    ],
    version: Annotated[
        str, typer.Option("--version", help="One version of it. Default: the newest.")
    ] = "",
    is_rest: Annotated[
        bool, typer.Option("--rest/--grpc", help="The protocol that is spoken.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer as the protocol's JSON.")
    ] = False,
    endpoint: mesh.Endpoint = None,
) -> None:
    """Send one prediction to a model and print what it answers."""
    question = InferCommand(model, version, input_values.inputs(given))
    with mesh.connect(endpoint) as there:
        answer = _rest(there, question) if is_rest else _grpc(there.endpoint, question)
    if as_json:
        sys.stdout.write(f"{json.dumps(answer, indent=2)}\n")
    else:
        _print_outputs(terminal.out(), answer)


def _grpc(endpoint: str, question: InferCommand) -> dict[str, Any]:
    with client.Client(endpoint, os.environ.get(mesh.API_KEY)) as there:
        known = there.metadata(question.model, question.version)
        predicted = there.predict(question.model, question.inputs, version=question.version)
    datatypes = {spec.name: spec.datatype for spec in known.outputs}
    named = (
        predicted if isinstance(predicted, dict) else {next(iter(datatypes), "output"): predicted}
    )
    outputs = [_tensor(name, datatypes.get(name, ""), array) for name, array in named.items()]
    return {
        "model_name": question.model,
        "model_version": question.version or (known.versions or ("",))[-1],
        "outputs": outputs,
    }


def _rest(there: mesh.MeshConnection, question: InferCommand) -> dict[str, Any]:
    version = f"/versions/{quote(question.version, safe='')}" if question.version else ""
    path = f"/v2/models/{quote(question.model, safe='')}{version}"
    known = there.ask("GET", path).json()
    specs = [
        core.TensorSpec(spec["name"], spec["datatype"], tuple(spec["shape"]))
        for spec in known["inputs"]
    ]
    tensors = [
        _tensor(spec.name, spec.datatype, array)
        for spec, array in arrays.fit_all(question.model, question.inputs, specs)
    ]
    try:
        answer: dict[str, Any] = there.ask("POST", f"{path}/infer", body={"inputs": tensors}).json()
    except ValueError:
        raise errors.InvalidRequest("JSON has no NaN and no infinity: ask with --grpc") from None
    return answer


def _tensor(name: str, datatype: str, array: np.ndarray) -> dict[str, Any]:
    """A tensor as the protocol's JSON has it, its values flat in row-major order."""
    flat = [
        value.decode(errors="replace") if isinstance(value, bytes) else value
        for value in array.ravel().tolist()
    ]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": flat}


def _print_outputs(out: Console, answer: dict[str, Any]) -> None:
    for tensor in answer["outputs"]:
        out.print(f"{tensor['name']}  {tensor['datatype']} {tensor['shape']}", style="bold")
        values = np.asarray(tensor["data"]).reshape(tensor["shape"])
        out.print(
            np.array2string(
                values,
                threshold=SHOWN_MAX,
                precision=6,
                suppress_small=True,
                max_line_width=out.width,
            )
        )

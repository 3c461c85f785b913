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
from meshserve.cli import connection, input_values, terminal
from meshserve.client import admin, arrays
from meshserve.core.values import model as core
from meshserve.protocol import paths

commands = {"infer": typer.Typer(add_completion=False)}

SHOWN_MAX = 200


class Question(NamedTuple):
    """The prediction that the command line asks for. An empty version means the newest."""

    model: str
    version: str
    inputs: arrays.Inputs


@commands["infer"].command("infer")
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
    endpoint: connection.Endpoint = None,
) -> None:
    """Send one prediction to a model and print what it answers."""
    question = Question(model, version, input_values.inputs(given))
    with connection.connect(endpoint) as mesh:
        answer = _ask_rest(mesh, question) if is_rest else _ask_grpc(mesh.endpoint, question)
    if as_json:
        sys.stdout.write(f"{json.dumps(answer, indent=2)}\n")
    else:
        _print_outputs(terminal.out(), answer)


def _ask_grpc(endpoint: str, question: Question) -> dict[str, Any]:
    """Return the answer as the REST protocol would have it."""
    # A prediction comes back as plain arrays; their datatypes are in the metadata.
    with client.Client(endpoint, os.environ.get(admin.API_KEY)) as mesh:
        metadata = mesh.metadata(question.model, question.version)
        answer = mesh.predict(question.model, question.inputs, version=question.version)
    datatypes = {spec.name: spec.datatype for spec in metadata.outputs}
    arrays_by_name = (
        answer if isinstance(answer, dict) else {next(iter(datatypes), "output"): answer}
    )
    outputs = [
        _tensor(name, datatypes.get(name, ""), array) for name, array in arrays_by_name.items()
    ]
    return {
        "model_name": question.model,
        # The newest one answers a request without a version, and versions come oldest first.
        "model_version": question.version or (metadata.versions or ("",))[-1],
        "outputs": outputs,
    }


def _ask_rest(mesh: admin.AdminClient, question: Question) -> dict[str, Any]:
    version = f"/versions/{quote(question.version, safe='')}" if question.version else ""
    path = f"{paths.V2_MODELS}{quote(question.model, safe='')}{version}"
    # Values on a command line have no datatypes: the model's metadata gives them.
    metadata = mesh.request("GET", path)
    specs = [
        core.TensorSpec(spec["name"], spec["datatype"], tuple(spec["shape"]))
        for spec in metadata["inputs"]
    ]
    is_loose = bool(metadata.get("has_loose_inputs"))
    taken = arrays.TakenInputs(specs, is_loose, metadata.get("platform", ""))
    tensors = [
        _tensor(spec.name, spec.datatype, array)
        for spec, array in arrays.to_tensors(question.model, question.inputs, taken)
    ]
    try:
        return mesh.request("POST", f"{path}/infer", body={"inputs": tensors})
    except ValueError:  # raised by httpx before anything is sent
        raise errors.InvalidRequest("JSON has no NaN and no infinity: ask with --grpc") from None


def _tensor(name: str, datatype: str, array: np.ndarray) -> dict[str, Any]:
    """Return an array of any shape as the REST protocol's tensor, its values in row-major order."""
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

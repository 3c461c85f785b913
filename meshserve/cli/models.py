"""`meshserve models …`: the models of a running mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml

from meshserve import config, errors
from meshserve.cli import mesh, tables, terminal

app = typer.Typer(no_args_is_help=True, help="List, show and change the models of a running mesh.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name, or an alias of it.")]
Version = Annotated[
    str | None, typer.Option("--version", help="One version of it. Default: the newest.")
]


@app.command("list")
def list_models(
    prefix: Annotated[str | None, typer.Option(help="Only names that begin so.")] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Only models in this state: absent, loading, ready, failed, …"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    after: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only names that come after this one.")
    ] = None,
    as_json: mesh.Json = False,
    endpoint: mesh.Endpoint = None,
) -> None:
    """List models with their state, worker, footprint and requests."""
    with mesh.connect(endpoint) as there:
        answer = there.models(prefix=prefix, state=state, limit=limit, after=after)
    if as_json:
        return terminal.print_json(answer)
    out = terminal.out()
    return out.print(tables.models(answer.json(), out.width))


@app.command()
def show(
    name: Name, version: Version = None, as_json: mesh.Json = False, endpoint: mesh.Endpoint = None
) -> None:
    """Show all that is known of one model."""
    with mesh.connect(endpoint) as there:
        _print_model(there.model("GET", name, version), as_json)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What clients call it.")],
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI", help="A file or folder on the mesh's machine, or https://, s3://, …"
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other key of a `models:` entry, e.g. pinned=true.",
        ),
    ] = None,
    as_json: mesh.Json = False,
    endpoint: mesh.Endpoint = None,
) -> None:
    """Register a model, or change one that is there. It stays registered when the mesh is restarted."""
    entry = {"name": name, "uri": _absolute(uri), **dict(_setting(text) for text in settings or ())}
    body = config.parse_model(entry).model_dump(mode="json", exclude_unset=True, exclude={"name"})
    with mesh.connect(endpoint) as there:
        _print_model(there.model("PUT", name, None, body), as_json)


@app.command()
def remove(
    name: Name, version: Version = None, as_json: mesh.Json = False, endpoint: mesh.Endpoint = None
) -> None:
    """Take a model out of the mesh: all its versions, or one. Its files stay where they are."""
    with mesh.connect(endpoint) as there:
        answer = there.model("DELETE", name, version)
    if as_json:
        return terminal.print_json(answer)
    return terminal.out().print(f"{name}{f' version {version}' if version else ''} removed")


@app.command()
def load(
    name: Name, version: Version = None, as_json: mesh.Json = False, endpoint: mesh.Endpoint = None
) -> None:
    """Load a model now, rather than with its first request; answers when it is loaded."""
    _order(endpoint, (name, "load", version), as_json)


@app.command()
def unload(
    name: Name, version: Version = None, as_json: mesh.Json = False, endpoint: mesh.Endpoint = None
) -> None:
    """Free a model's memory. It stays registered, and the next request loads it again."""
    _order(endpoint, (name, "unload", version), as_json)


@app.command()
def pin(
    name: Name, version: Version = None, as_json: mesh.Json = False, endpoint: mesh.Endpoint = None
) -> None:
    """Load a model and keep it in memory."""
    _order(endpoint, (name, "pin", version), as_json)


@app.command()
def unpin(
    name: Name, version: Version = None, as_json: mesh.Json = False, endpoint: mesh.Endpoint = None
) -> None:
    """Let a pinned model make room for others again."""
    _order(endpoint, (name, "unpin", version), as_json)


def _order(endpoint: str | None, order: tuple[str, str, str | None], as_json: bool) -> None:
    with mesh.connect(endpoint) as there:
        _print_model(there.order(*order), as_json)


def _print_model(answer: httpx.Response, as_json: bool) -> None:
    if as_json:
        return terminal.print_json(answer)
    return terminal.out().print(tables.model(answer.json()))


def _absolute(uri: str) -> str:
    """A local path made absolute, so that it means the same to the mesh."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise errors.ConfigInvalid(f"--set {text}: expected KEY=VALUE, such as pinned=true")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise errors.ConfigInvalid(
            f"--set {text}: the value is no YAML; put text with special characters in quotes"
        ) from None

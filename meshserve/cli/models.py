"""`meshserve models …`: the models of a running mesh."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from meshserve import config, errors
from meshserve.cli import connection, model_lines, tables, terminal
from meshserve.client import admin
from meshserve.protocol import mesh_status

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
    as_json: connection.AsJson = False,
    endpoint: connection.Endpoint = None,
) -> None:
    """List models with their state, worker, footprint and requests."""
    with connection.connect(endpoint) as client:
        page = client.models(prefix=prefix, state=state, limit=limit, after=after)
    if as_json:
        return terminal.print_json(page)
    out = terminal.out()
    return out.print(tables.models(page, out.width))


@app.command()
def show(
    name: Name,
    version: Version = None,
    as_json: connection.AsJson = False,
    endpoint: connection.Endpoint = None,
) -> None:
    """Show all that is known of one model."""
    with connection.connect(endpoint) as client:
        _print_model(client.model(name, version), as_json)


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
    as_json: connection.AsJson = False,
    endpoint: connection.Endpoint = None,
) -> None:
    """Register a model, or change one that is there.
    It stays registered when the mesh is restarted.
    """  # noqa: D205 - typer prints the first paragraph
    entry = {"name": name, "uri": _absolute(uri), **dict(_setting(text) for text in settings or ())}
    # Checked here too, so that errors name the command line. Keys that are not given are not sent:
    # the mesh may be of another version, with other defaults.
    body = config.parse_model(entry).model_dump(mode="json", exclude_unset=True, exclude={"name"})
    begun_s = time.time()
    with connection.connect(endpoint) as client:
        _print_model(client.register(name, body), as_json, begun_s)


@app.command()
def remove(
    name: Name,
    version: Version = None,
    as_json: connection.AsJson = False,
    endpoint: connection.Endpoint = None,
) -> None:
    """Take a model out of the mesh: all its versions, or one. Its files stay where they are."""
    with connection.connect(endpoint) as client:
        removed = client.remove(name, version)
    if as_json:
        return terminal.print_json(removed)
    return terminal.out().print(f"{name}{f' version {version}' if version else ''} removed")


Verb = Callable[[admin.AdminClient, str, str | None], mesh_status.ModelStatus]


def _add_verb(name: str, verb: Verb, description: str) -> None:
    """Add a command that calls one method of the client for one model."""

    @app.command(name, help=description)
    def command(
        name: Name,
        version: Version = None,
        as_json: connection.AsJson = False,
        endpoint: connection.Endpoint = None,
    ) -> None:
        begun_s = time.time()
        with connection.connect(endpoint) as client:
            shown = verb(client, name, version)
        _print_model(shown, as_json, begun_s if verb is admin.AdminClient.load else None)


_add_verb(
    "load",
    admin.AdminClient.load,
    "Load a model now, rather than with its first request; answers when it is loaded.",
)
_add_verb(
    "unload",
    admin.AdminClient.unload,
    "Free a model's memory. It stays registered, and the next request loads it again.",
)
_add_verb(
    "release",
    admin.AdminClient.release,
    "Try a model again that is in quarantine because it has ended processes.",
)
_add_verb("pin", admin.AdminClient.pin, "Load a model and keep it in memory.")
_add_verb("unpin", admin.AdminClient.unpin, "Let a pinned model make room for others again.")


def _print_model(
    model: mesh_status.ModelStatus, as_json: bool, begun_s: float | None = None
) -> None:
    """Print a model; after an order to load it, begun at a Unix time, also if nothing was to do."""
    if as_json:
        return terminal.print_json(model)
    out = terminal.out()
    out.print(tables.model(model))
    unchanged = "" if begun_s is None else model_lines.unchanged(model, begun_s)
    return out.print(f"\n{unchanged}", style="yellow", soft_wrap=True) if unchanged else None


def _absolute(uri: str) -> str:
    # The mesh resolves paths, and its process has another working directory.
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

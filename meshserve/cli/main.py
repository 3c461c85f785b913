"""The commands, and what becomes of their errors."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from meshserve import config, errors
from meshserve.cli import llm_tables, load_config, mesh, models, tables, terminal, top, units

# These import Ray or numpy and gRPC, which takes a second or more: the others shall not wait for it.
LATE = {"up": "meshserve.cli.up", "down": "meshserve.cli.down", "infer": "meshserve.cli.infer"}


class Commands(typer.core.TyperGroup):
    """A group whose late commands are imported when they are called, and whose errors end in one line and an exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called."""
        module = LATE.get(args[0]) if args else None
        if module:
            self.commands[args[0]] = typer.main.get_command(importlib.import_module(module).command)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it. A user's mistake ends with exit code 2, what the mesh says with 1."""
        try:
            return super().invoke(ctx)
        except errors.ConfigInvalid as error:
            terminal.err().print(error.message)
            raise typer.Exit(2) from None
        except errors.MeshError as error:
            terminal.err().print(f"error: {' '.join(error.message.split())}")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
checks = typer.Typer(no_args_is_help=True, help="Look at configuration files.")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"meshserve {importlib.metadata.version('meshserve')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """One endpoint for every model of a company. Start with `meshserve up CONFIG`."""


@app.command("down", help="End the mesh that was started from this machine.")
@app.command("up", help="Bring a mesh up, or apply a changed configuration to the one that runs.")
def late() -> None:
    """Stand for a command in the list of commands until it is called."""


@app.command()
def status(as_json: mesh.Json = False, endpoint: mesh.Endpoint = None) -> None:
    """Show how the mesh is: workers, gateways, number of models, LLMs."""
    with mesh.connect(endpoint) as there:
        answer = there.status()
        if as_json:
            return terminal.print_json(answer)
        out, said = terminal.out(), answer.json()
        out.print(tables.status(said, there.endpoint, out.width))
        return out.print(llm_tables.llms(said, out.width)) if said["llms"] else None


app.command("top")(top.top)
app.add_typer(models.app, name="models")
app.command("infer", help="Send one prediction to a model and print what it answers.")(late)


@app.command()
def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    sys.stdout.write(f"{json.dumps(config.json_schema(), indent=2)}\n")


@checks.command("check")
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A config.yaml.")]) -> None:
    """Say whether a configuration is good; start nothing."""
    read = load_config.load(file)
    pools = ", ".join(
        f"{name} ({pool.workers} × {units.size(pool.memory)}, {pool.device})"
        for name, pool in read.pools.items()
    )
    counts = [
        (read.models, "model"),
        (read.repositories, "repository"),
        *([(read.llms, "LLM")] if read.llms else []),
    ]
    terminal.out().print(
        f"{file} is good: {', '.join(units.number(len(found), noun) for found, noun in counts)}",
        soft_wrap=True,
    )
    if read.llms and not load_config.can_judge():
        terminal.out().print(
            "  vLLM is not installed here (extras llm, llm-cpu): arguments of engines were not checked",
            style="yellow",
        )
    terminal.out().print(
        f"  gateway {read.gateway.listen}\n  pools   {pools}\n  state   {read.state_dir}",
        soft_wrap=True,
    )


app.add_typer(checks, name="config")


def main() -> None:
    """Run the command line. Ends the process with 0, with 2 for a bad command line or configuration, or with 1."""
    app(prog_name="meshserve")

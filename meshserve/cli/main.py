"""The commands in their order, and the exit codes of their errors."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Annotated, Any

import typer

from meshserve import config, errors
from meshserve.cli import (
    config_commands,
    connection,
    event_commands,
    llm_tables,
    log_commands,
    manifest,
    models,
    tables,
    terminal,
    top,
)
from meshserve.launch import mesh_file

# These modules import Ray, or numpy and gRPC, which takes a second or more. They are imported when
# their command is called, so that every other command starts in a fraction of that time.
LATE = {
    "up": "meshserve.cli.up_down",
    "down": "meshserve.cli.up_down",
    "drain": "meshserve.cli.drain",
    "infer": "meshserve.cli.infer",
}


class Commands(typer.core.TyperGroup):
    """A group that imports late commands when they are called, and prints errors in one line."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the called command."""
        if args and args[0] in LATE:
            module = importlib.import_module(LATE[args[0]])
            self.commands[args[0]] = typer.main.get_command(module.commands[args[0]])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the called command.

        Raises typer.Exit, with code 2 for a mistake of the user and 1 for an error of the mesh.
        """
        try:
            return super().invoke(ctx)
        except errors.ConfigInvalid as error:
            # As it is: a configuration's faults have a line each.
            terminal.err().print(error.message)
            raise typer.Exit(2) from None
        except errors.MeshError as error:
            terminal.err().print(f"error: {' '.join(error.message.split())}")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
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


# Stubs for the late commands: typer lists commands in the order in which they are registered.
@app.command("down", help="End the mesh that was started from this machine.")
@app.command("drain", help="Have a node lose all that the mesh runs on it, and wait for that.")
@app.command("up", help="Bring a mesh up, or apply a changed configuration to the one that runs.")
def late() -> None:
    """Stand for a late command in the list of commands."""


@app.command()
def status(as_json: connection.AsJson = False, endpoint: connection.Endpoint = None) -> None:
    """Show how the mesh is: workers, gateways, number of models, LLMs."""
    with connection.connect(endpoint) as client:
        answer = client.status()
    if as_json:
        return terminal.print_json(answer)
    out = terminal.out()
    out.print(tables.status(answer, client.endpoint, out.width))
    if not endpoint:
        out.print(f"logs: {mesh_file.logs_dir(config.home())}", style="dim", soft_wrap=True)
    return out.print(llm_tables.llms(answer["llms"], out.width)) if answer["llms"] else None


# Registered in the order in which `meshserve --help` should list them.
app.command("top")(top.top)
app.command("logs")(log_commands.logs)
app.command("events")(event_commands.events)
app.add_typer(models.app, name="models")
app.command("infer", help="Send one prediction to a model and print what it answers.")(late)
app.command("schema")(config_commands.schema)
app.command("manifest")(manifest.manifest)
app.add_typer(config_commands.app, name="config")


def main() -> None:
    """Run the command line.

    Ends the process with 0, with 2 for a bad command line or configuration, or with 1.
    """
    app(prog_name="meshserve")

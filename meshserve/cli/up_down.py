"""`meshserve up` and `meshserve down`: start, change and end a mesh."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console

from meshserve import config
from meshserve.cli import config_commands, connection, progress_view, terminal, units
from meshserve.client import admin
from meshserve.launch import detach, lifecycle, mesh_file, secret_file

# -P, because the folder in which a mesh is started must give it no modules.
PROGRAM = (sys.executable, "-P", "-m", "meshserve.cli")

LOG_FORMAT = "MESHSERVE_LOG_FORMAT"

NONE_IS_RUNNING = 3
"""Exit code of `down` where no mesh is to be ended, for scripts that must know."""

commands = {name: typer.Typer(add_completion=False) for name in ("up", "down")}


TakesOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        envvar=lifecycle.TAKE_OVER,
        help="Take the registry from another mesh that writes it; what that one runs goes on.",
    ),
]


@commands["up"].command("up")
def up(
    file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config.yaml.")],
    is_detached: Annotated[
        bool,
        typer.Option(
            "--detach", "-d", help="Return when the mesh is ready; `meshserve down` ends it."
        ),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT", help="Join this Ray cluster instead of starting one."
        ),
    ] = None,
    is_verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Plain lines, with everything that is logged.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(envvar=LOG_FORMAT, help="In place of the configuration's `logging.format`."),
    ] = None,
    is_taking_over: TakesOver = False,
) -> None:
    """Bring a mesh up, or apply a changed configuration to the one that runs."""
    # First, so that a mistake in the file changes and starts nothing.
    settings = _with_log_format(config_commands.load(file), log_format)
    if is_verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if is_taking_over:
        # For the process of a detached mesh, as the format of logs.
        os.environ[lifecycle.TAKE_OVER] = "1"
    out = terminal.out()
    # `up` with the state directory of a running mesh changes that mesh.
    running = mesh_file.running_endpoint(settings.state_dir)
    if running:
        _apply(running, settings, out)
    elif is_detached:
        with out.status("starting …"):
            endpoint = detach.start(settings, str(file), address)
        _print_ready(out, endpoint, settings, f"`{_down_command(settings)}` drains and ends it.")
    else:
        _serve(settings, file, address, is_verbose)


def _with_log_format(settings: config.Config, log_format: str | None) -> config.Config:
    if log_format is None:
        return settings
    # For the process of a detached mesh, which reads the file itself.
    os.environ[LOG_FORMAT] = log_format
    changed = settings.logging.model_copy(update={"format": log_format})
    return settings.model_copy(update={"logging": changed})


def _serve(settings: config.Config, file: Path, address: str | None, is_plain: bool) -> None:
    """Start a mesh, and drain it at Ctrl-C or SIGTERM; return when it has ended."""
    out = terminal.out()
    # `meshserve down` sends SIGTERM; an exception lets the context drain the mesh.
    signal.signal(signal.SIGTERM, _interrupt)
    with progress_view.shown(out, is_plain) as report:
        mesh = lifecycle.up(settings, str(file), address, report)
    # The mesh is the inner one, so that it drains before the interrupt is dropped.
    with contextlib.suppress(KeyboardInterrupt), mesh:
        _print_ready(out, mesh.endpoint, settings, "Ctrl-C drains and ends it.")
        mesh.wait()
    if mesh.is_lost:
        out.print("Ray's GCS has ended, and the mesh with it: it is started again")
        # In a new process of the same id: Ray's libraries can't forget a cluster that was lost.
        verbose = ["--verbose"] if is_plain else []
        os.execv(sys.executable, [*PROGRAM, "up", str(file), *verbose])  # noqa: S606 - this program
    out.print("the mesh has ended")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _apply(endpoint: str, settings: config.Config, out: Console) -> None:
    key = secret_file.read_owner_key(settings.state_dir)
    with admin.AdminClient(endpoint, settings.admin_key, key) as client:
        changes = client.apply(config.document(settings))
    # The gateway may listen elsewhere now, where the next command must find the mesh.
    mesh_file.move(settings.state_dir, lifecycle.client_endpoint(settings.gateway.listen))
    out.print(f"a mesh is running at {endpoint}: {'applied' if changes else 'nothing to change'}")
    for change in changes:
        out.print(f"  {change}", soft_wrap=True)


def _print_ready(out: Console, endpoint: str, settings: config.Config, ending: str) -> None:
    out.print(f"\nmeshserve is ready at {endpoint} (gRPC and REST)\n", style="bold green")
    for command in _next_commands(endpoint, settings):
        out.print(f"  {command}", soft_wrap=True)
    # The start did not wait for them: an engine takes minutes.
    starting = lifecycle.starting_llms(endpoint, settings)
    if starting:
        verb = "is" if len(starting) == 1 else "are"
        out.print(
            f"\n{units.number(len(starting), 'LLM')} {verb} still starting: {', '.join(starting)}",
            style="yellow",
            soft_wrap=True,
        )
    out.print(f"\nlogs: {mesh_file.logs_dir(settings.state_dir)}", style="dim", soft_wrap=True)
    out.print(ending, style="dim")


def _has_default_home(settings: config.Config) -> bool:
    return settings.state_dir == config.home()


def _down_command(settings: config.Config) -> str:
    if _has_default_home(settings):
        return "meshserve down"
    return f"MESHSERVE_HOME={shlex.quote(str(settings.state_dir))} meshserve down"


def _next_commands(endpoint: str, settings: config.Config) -> list[str]:
    """Return commands for a new user to copy."""
    # Other commands find a mesh by themselves only in the default state directory.
    option = "" if _has_default_home(settings) else f" --endpoint {endpoint}"
    commands = [f"meshserve status{option}", f"meshserve models list{option}"]
    if _has_default_home(settings):
        commands.append("meshserve logs --follow")
    if settings.models:
        commands.append(f"curl {endpoint}/v2/models/{settings.models[0].name}")
    if settings.llms:
        body = {
            "model": settings.llms[0].name,
            "stream": True,
            "messages": [{"role": "user", "content": "Say hello."}],
        }
        commands.append(
            f"curl -N {endpoint}/v1/chat/completions -H 'content-type: application/json' "
            f"-d {shlex.quote(json.dumps(body))}"
        )
    return commands


@commands["down"].command("down")
def down(endpoint: connection.Endpoint = None) -> None:
    """End the mesh that was started from this machine: it drains first.

    The exit code is 0 if a mesh has ended, 3 if none was running, and 1 if it could not be ended.
    """
    out = terminal.out()
    named = connection.parse_endpoint(endpoint) if endpoint else None
    running = named or lifecycle.find_running(config.home()) or _exit_without_mesh(out)
    with out.status(f"draining {running} …"):
        lifecycle.down(config.home(), named)
    out.print(f"{running} has ended")


def _exit_without_mesh(out: Console) -> NoReturn:
    out.print("no mesh is running")
    raise typer.Exit(NONE_IS_RUNNING)

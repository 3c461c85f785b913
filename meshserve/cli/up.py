"""`meshserve up`: a mesh brought up in front of its user, or beside them, or changed."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from meshserve import app, config
from meshserve.cli import load_config, start_progress, terminal, units

command = typer.Typer(add_completion=False)


@command.command("up")
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
) -> None:
    """Bring a mesh up, or apply a changed configuration to the one that runs."""
    read = load_config.load(file)
    if is_verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    running = app.running(read.state_dir)
    out = terminal.out()
    if running:
        _apply(running, read, out)
    elif is_detached:
        with out.status("starting …"):
            endpoint = app.spawn_detached(str(file), address)
        _print_ready(out, endpoint, read, f"`{_ending(read)}` drains and ends it.")
    else:
        _serve(read, file, address, is_verbose)


def _serve(read: config.Config, file: Path, address: str | None, is_plain: bool) -> None:
    """Until Ctrl-C or SIGTERM; leaving the context drains the mesh."""
    out = terminal.out()
    signal.signal(signal.SIGTERM, _interrupt)
    with start_progress.shown(out, is_plain) as report:
        started = app.up(read, str(file), address, report)
    with contextlib.suppress(KeyboardInterrupt), started:
        _print_ready(out, started.endpoint, read, "Ctrl-C drains and ends it.")
        started.wait()
    out.print("the mesh has ended")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _apply(endpoint: str, read: config.Config, out: Console) -> None:
    changes = app.apply(endpoint, read)
    out.print(f"a mesh is running at {endpoint}: {'applied' if changes else 'nothing to change'}")
    for change in changes:
        out.print(f"  {change}", soft_wrap=True)


def _print_ready(out: Console, endpoint: str, read: config.Config, ending: str) -> None:
    out.print(f"\nmeshserve is ready at {endpoint} (gRPC and REST)\n", style="bold green")
    for line in next_steps(endpoint, read):
        out.print(f"  {line}", soft_wrap=True)
    starting = app.starting_llms(endpoint, read)
    if starting:
        words = f"{units.number(len(starting), 'LLM')} {'is' if len(starting) == 1 else 'are'} still starting: {', '.join(starting)}"
        out.print(f"\n{words}", style="yellow", soft_wrap=True)
    out.print(f"\n{ending}", style="dim")


def _ending(read: config.Config) -> str:
    here = (
        ""
        if read.state_dir == config.home()
        else f"MESHSERVE_HOME={shlex.quote(str(read.state_dir))} "
    )
    return f"{here}meshserve down"


def next_steps(endpoint: str, read: config.Config) -> list[str]:
    """Commands that a new user may copy. They find a mesh with a state directory of its own by its endpoint."""
    here = "" if read.state_dir == config.home() else f" --endpoint {endpoint}"
    steps = [f"meshserve status{here}", f"meshserve models list{here}"]
    if read.models:
        steps.append(f"curl {endpoint}/v2/models/{read.models[0].name}")
    if read.llms:
        asked = json.dumps(
            {
                "model": read.llms[0].name,
                "stream": True,
                "messages": [{"role": "user", "content": "Say hello."}],
            }
        )
        steps.append(
            f"curl -N {endpoint}/v1/chat/completions -H 'content-type: application/json' -d {shlex.quote(asked)}"
        )
    return steps

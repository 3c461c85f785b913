"""`meshserve down`."""

from __future__ import annotations

import typer

from meshserve import app, config
from meshserve.cli import mesh, terminal

command = typer.Typer(add_completion=False)


@command.command("down")
def down(endpoint: mesh.Endpoint = None) -> None:
    """End the mesh that was started from this machine: it drains first."""
    out = terminal.out()
    named = mesh.normal(endpoint) if endpoint else None
    there = named or app.running(config.home())
    if there is None:
        out.print("no mesh is running")
        return
    with out.status(f"draining {there} …"):
        app.down(config.home(), named)
    out.print(f"{there} has ended")

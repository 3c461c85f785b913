"""The pools that follow their load, a line for each."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from meshserve.cli import units
from meshserve.protocol import mesh_status


def lines(answer: mesh_status.MeshStatus) -> Iterator[Text]:
    """Yield how many workers each of these pools has and should have, and why."""
    for pool in answer["pools"]:
        # A mesh of an earlier version sends no bounds.
        least, most = pool.get("workers_min", 0), pool.get("workers_max", 0)
        if least == most:
            continue
        ready = sum(worker["state"] == "ready" for worker in pool["workers"])
        words = f"{ready} of {pool['workers_wanted']} workers, {least} to {most}"
        reason = f" · {pool['reason']}" if pool["reason"] else ""
        held = f" · {units.number(pool['held'], 'request')} held" if pool["held"] else ""
        yield Text.assemble(("pool   ", "bold"), f"{pool['name']}: {words}{reason}{held}")

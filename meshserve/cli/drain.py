"""`meshserve drain`: have a node lose all that the mesh runs on it, and wait for that."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from meshserve import config, errors
from meshserve.cli import connection, terminal, units
from meshserve.client import admin
from meshserve.cluster import session
from meshserve.core.values import nodes
from meshserve.launch import mesh_file, own_node
from meshserve.protocol import mesh_status

POLL_S = 0.5
ANY_HOST = "0.0.0.0"

commands = {"drain": typer.Typer(add_completion=False)}
ReadStatus = Callable[[], mesh_status.MeshStatus]


class DrainedNode(NamedTuple):
    """A node, and how it is reached: `matches` it in a status, and the calls that concern it."""

    matches: Callable[[mesh_status.NodeStatus], bool]
    drain: Callable[..., list[str]]
    end_drain: Callable[[], list[str]]
    status: ReadStatus


@commands["drain"].command("drain")
def drain(
    name: Annotated[
        str | None,
        typer.Option("--node", metavar="NAME|ID|ADDRESS", help="The node; `status` lists them."),
    ] = None,
    is_own: Annotated[
        bool, typer.Option("--self", help="This machine, by its Ray: no key is needed.")
    ] = False,
    is_undone: Annotated[bool, typer.Option("--undo", help="Use the node again.")] = False,
    is_ended: Annotated[
        bool, typer.Option("--ray", help="Then have Ray drain the node too: its Ray ends.")
    ] = False,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout",
            min=0.0,
            metavar="SECONDS",
            help="How long models and LLMs may take to move; then requests have 30 s more.",
        ),
    ] = 60.0,
    endpoint: connection.Endpoint = None,
) -> None:
    """Drain a node: its models load elsewhere, its requests end, and nothing is started on it.

    The exit code is 0 once nothing of the mesh runs on the node, and 1 if something still does
    after the time, or if the node can't be drained. The wish stays until `--undo`, or until the
    node leaves the cluster. Raises typer.BadParameter unless one node is named.
    """
    if (name is None) != is_own:
        raise typer.BadParameter("name one node: --node NAME, or --self")
    out = terminal.out()
    with _node(name, endpoint) as node:
        words = node.end_drain() if is_undone else node.drain(timeout_s, is_ended=is_ended)
        for line in words:
            out.print(line, soft_wrap=True)
        if not is_undone:
            _wait(node, out, time.monotonic() + timeout_s + nodes.LEAVE_S)


@contextlib.contextmanager
def _node(name: str | None, endpoint: str | None) -> Iterator[DrainedNode]:
    if name is None:
        with own_node.found(_own_ray()) as own:
            yield DrainedNode(lambda row: row["id"] == own.id, own.drain, own.end_drain, own.status)
        return
    with connection.connect(endpoint) as client:
        is_it = functools.partial(_is_called, name)
        yield DrainedNode(
            is_it,
            functools.partial(client.drain_node, name),
            functools.partial(client.end_node_drain, name),
            GatewayReader(client, is_it).read,
        )


def _own_ray() -> str:
    """Return the address of the Ray whose node this machine is.

    Raises Conflict if the mesh that was started here has a Ray of its own, with one node.
    """
    mesh = mesh_file.read(config.home())
    if mesh is None:
        return session.AUTO
    if not mesh.address:
        # Ray would look for any Ray of the machine, and wait for one that does not answer.
        raise errors.Conflict(
            "the mesh that was started here runs on this machine alone, so nothing can go "
            "elsewhere; `meshserve down` drains and ends it"
        )
    return mesh.address


def _is_called(name: str, row: mesh_status.NodeStatus) -> bool:
    return name in (row["id"], row["name"], row["address"]) or row["id"].startswith(name)


class GatewayReader:
    """Asks another gateway when the one that was asked so far has left with the node."""

    def __init__(
        self, client: admin.AdminClient, is_drained: Callable[[mesh_status.NodeStatus], bool]
    ) -> None:
        self._client = client
        self._is_drained = is_drained
        self._others: list[str] = []

    def read(self) -> mesh_status.MeshStatus:
        """Return the status of the mesh. Raises a MeshError if no gateway answers."""
        try:
            answer = self._client.status()
        except errors.MeshError:
            for other in self._others:
                with contextlib.suppress(errors.MeshError), admin.AdminClient(other) as client:
                    return client.status()
            raise
        self._others = list(_other_gateways(answer, self._is_drained))
        return answer


def _other_gateways(
    answer: mesh_status.MeshStatus, is_drained: Callable[[mesh_status.NodeStatus], bool]
) -> Iterator[str]:
    """Yield the URLs of the gateways of other nodes, if they listen for other machines."""
    staying = {row["id"]: row["address"] for row in answer["nodes"] if not is_drained(row)}
    for gateway in answer["gateways"]:
        host, _, port = gateway["listen"].rpartition(":")
        if host == ANY_HOST and staying.get(gateway["node"]):
            yield f"http://{staying[gateway['node']]}:{port}"


def _wait(node: DrainedNode, out: Console, end_s: float) -> None:
    """Print how the drain goes on; return when it has ended.

    Raises DeadlineExceeded, or Conflict if the wish was taken back.
    """
    begun_s, shown = time.monotonic(), ""
    while True:
        line, is_done = _progress(node)
        if line != shown:
            shown = line
            out.print(f"{time.monotonic() - begun_s:6.1f} s  {line}", soft_wrap=True)
        if is_done:
            return
        if time.monotonic() > end_s:
            raise errors.DeadlineExceeded(f"the node is not drained in time: {line}")
        time.sleep(POLL_S)


def _progress(node: DrainedNode) -> tuple[str, bool]:
    """Return the state of the drain in words, and whether it has ended.

    Raises Conflict if the node is not to be drained any more.
    """
    try:
        rows = [row for row in node.status()["nodes"] if node.matches(row)]
    except errors.MeshError as error:
        # The controller may be on its way back, and the wish is saved.
        return f"no answer: {error.message}", False
    if not rows:
        return "the node has left the cluster", True
    (row,) = rows
    if row["drain"] is None:
        raise errors.Conflict("the node is used again: the wish was taken back")
    return f"{row['state']}: {'; '.join(_parts(row['drain']))}", row["state"] == "drained"


def _parts(counts: mesh_status.DrainStatus) -> Iterator[str]:
    models = f"{units.number(counts['moved'], 'model')} loaded elsewhere"
    yield models + (f", {counts['to_move']} to go" if counts["to_move"] else "")
    if counts["failed"] or counts["without_room"]:
        yield f"{counts['failed'] + counts['without_room']} left to their next request"
    if counts["remaining"]:
        yield f"still there: {', '.join(counts['remaining'])}"

"""The connection of a command to a mesh, and the options that choose it."""

from __future__ import annotations

from typing import Annotated

import httpx
import typer

from meshserve import config, errors
from meshserve.client import admin
from meshserve.launch import mesh_file, secret_file

Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        envvar="MESHSERVE_ENDPOINT",
        metavar="URL",
        help="The mesh to speak to. Default: the one started from this machine.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the mesh's JSON as it is.")]


def connect(endpoint: str | None) -> admin.AdminClient:
    """Return a client of the mesh at `endpoint`, or of the one started from this machine.

    That one gets the owner's key, also where `endpoint` names it. Raises ConfigInvalid for a
    malformed endpoint, Unavailable if no mesh was started here.
    """
    url = parse_endpoint(endpoint) if endpoint else _local_endpoint()
    mesh = mesh_file.read(config.home())
    # To no other mesh: whoever knows the key may name any file of this machine.
    is_own = mesh is not None and parse_endpoint(mesh.endpoint) == url
    key = secret_file.read_owner_key(config.home()) if is_own else ""
    return admin.AdminClient(url, owner_key=key)


def parse_endpoint(endpoint: str) -> str:
    """Return `endpoint` as a URL; one without a scheme gets `http://`. Raises ConfigInvalid."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise errors.ConfigInvalid(f"--endpoint {endpoint}: {str(error).lower()}") from None
    # A path in front of the API is refused: the gateway serves at the root of its port alone.
    has_path = parsed.path.strip("/") or parsed.query
    if parsed.scheme not in ("http", "https") or not parsed.host or has_path:
        raise errors.ConfigInvalid(f"--endpoint {endpoint}: expected HOST:PORT or http://HOST:PORT")
    return url.rstrip("/")


def _local_endpoint() -> str:
    path = config.home() / mesh_file.NAME
    mesh = mesh_file.read(config.home())
    if mesh is not None:
        return parse_endpoint(mesh.endpoint)
    if path.exists():
        raise errors.Unavailable(f"{path} can't be read; name the mesh with --endpoint")
    raise errors.Unavailable(
        f"no mesh was started from this machine ({path} is not there); "
        "start one with: meshserve up CONFIG, or name one with --endpoint"
    )

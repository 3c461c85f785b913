"""What a start needs of this machine, checked before anything is started.

A Ray cluster takes seconds to start, and a failure inside of it is told late or not at all.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from meshserve import config, errors
from meshserve.cluster import session
from meshserve.gateway.envoy import gateway_paths, listener
from meshserve.llm import engine_lookup


def check(settings: config.Config) -> None:
    """Raise the reason why a mesh on this machine alone can't start, a MeshError."""
    try:
        listener.check_is_free(settings.gateway.listen)
    except OSError as error:
        raise errors.Unavailable(f"gateway.listen: {error.strerror or error}") from None
    for runtime in sorted({llm.runtime for llm in settings.llms}):
        kind = engine_lookup.installed(runtime)
        hint = kind.install_hint() if kind is not None else ""
        if hint:
            raise errors.MissingExtra(hint)


def make_run_dir(*, has_ray: bool) -> Path:
    """Return a new folder for sockets, Ray's too if it `has_ray`. Raises Unavailable."""
    # Not in the state directory: Unix sockets allow 107 bytes for their whole path.
    try:
        run_dir = Path(tempfile.mkdtemp(prefix="meshserve-"))
    except OSError as error:
        raise errors.Unavailable(
            f"no folder for temporary files can be written to ({error.strerror}); "
            "set TMPDIR to one, such as /tmp"
        ) from None
    longest = len(str(run_dir).encode()) + (session.SOCKET_BYTES_MAX if has_ray else 0)
    too_many = longest - gateway_paths.SOCKET_PATH_BYTES_MAX
    if too_many > 0:
        run_dir.rmdir()
        raise errors.Unavailable(
            f"the folder for temporary files, {run_dir.parent}, has a name that is {too_many} bytes"
            " too long for the Unix sockets below it; set TMPDIR to a shorter one, such as /tmp"
        )
    return run_dir

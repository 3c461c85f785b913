"""A Ray Serve app that is healthy exactly when the mesh of its cluster is ready.

KubeRay moves the clients of a RayService to another cluster when the apps there are healthy. No
request passes through it. Only a RayService imports this: it needs the extra `serve`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray import serve

from meshserve import errors
from meshserve.cluster import controller_actor

POLL_S = 1.0
ANSWER_S = 5.0
CHECK_S = 5.0
CHECK_TIMEOUT_S = 10.0


class MeshHealth:
    """Begins when the mesh is ready, and fails its health checks while it is not."""

    def __init__(self) -> None:
        # Without a limit of our own: KubeRay has one, and tells what it waits for.
        while _fault():
            time.sleep(POLL_S)

    async def check_health(self) -> None:
        """Raise Unavailable with the reason while the mesh is not ready."""
        reason = await asyncio.to_thread(_fault)
        if reason:
            raise errors.Unavailable(reason)


def _fault() -> str:
    """Return why the mesh is not ready, or an empty text."""
    controller = controller_actor.find_controller()
    if controller is None:
        return "no mesh runs on this cluster"
    try:
        state = controller.status(ANSWER_S)["state"]
    except errors.MeshError as error:
        return error.message
    return "" if state == "ready" else f"the mesh is {state}"


_deployment: Any = serve.deployment(
    MeshHealth,
    num_replicas=1,
    health_check_period_s=CHECK_S,
    health_check_timeout_s=CHECK_TIMEOUT_S,
    # As all of the mesh's actors: the head, where it may run, has no CPUs to give.
    ray_actor_options={"num_cpus": 0},
)
app = _deployment.bind()

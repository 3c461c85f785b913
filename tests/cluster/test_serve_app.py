from __future__ import annotations

import importlib

import pytest

from meshserve import errors
from meshserve.cluster import controller_actor


class Handle:
    """A controller's handle that answers at once."""

    def __init__(self, answer: str | errors.MeshError) -> None:
        self._answer = answer

    def status(self, _timeout_s: float) -> dict[str, str]:
        if isinstance(self._answer, errors.MeshError):
            raise self._answer
        return {"state": self._answer}


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (None, "no mesh runs on this cluster"),
        (Handle("starting"), "the mesh is starting"),
        (Handle("draining"), "the mesh is draining"),
        (Handle(controller_actor.NoAnswer("the controller is gone")), "the controller is gone"),
    ],
)
async def test_a_check_fails_with_the_reason(
    handle: Handle | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.serve", reason="the extra `serve` is not installed")
    app = importlib.import_module("meshserve.cluster.serve_app")
    monkeypatch.setattr(app.controller_actor, "find_controller", lambda: Handle("ready"))
    health = app.MeshHealth()
    await health.check_health()
    monkeypatch.setattr(app.controller_actor, "find_controller", lambda: handle)
    with pytest.raises(errors.Unavailable, match=reason):
        await health.check_health()

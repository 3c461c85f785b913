"""What a model's process finds when its code runs: nothing of the worker's, and its limits."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.worker.models import process_confinement, process_launcher
from tests.worker.models import test_isolated_model

LOOKS = """
import faulthandler, json, os, random, resource
import numpy as np

class Model:
    inputs = [("x", "INT64", [-1])]
    outputs = [("y", "BYTES", [1])]

    def predict(self, inputs):
        if inputs["x"].flat[0] > 1000:
            kept = np.ones(inputs["x"].flat[0], np.uint8)
        links = {}
        for name in os.listdir("/proc/self/fd"):
            try: links[name] = os.readlink(f"/proc/self/fd/{name}")
            except OSError: pass
        seen = {
            "descriptors": links, "session": os.getsid(0), "pid": os.getpid(),
            "nice": os.nice(0), "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
            "faults": faulthandler.is_enabled(), "random": [random.random(), np.random.rand()],
            "oom": int(open("/proc/self/oom_score_adj").read()),
        }
        return {"y": np.array([json.dumps(seen).encode()], object)}
"""

LIMITS = process_confinement.ProcessLimits(data_bytes_max=600 << 20, niceness=3)


def look(loaded: model_runtime.LoadedModel, size: int = 0) -> dict[str, object]:
    seen: dict[str, object] = json.loads(loaded.predict({"x": np.array([size])}, ())["y"][0])
    return seen


@pytest.fixture
def pair(tmp_path: Path) -> object:
    launcher = process_launcher.ProcessLauncher(lambda _: None)
    models = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        models.append(test_isolated_model.load_code(launcher, folder, LOOKS, limits=LIMITS))
    yield models
    for one in models:
        one.close()
    launcher.close()


def test_a_process_has_its_own_session_limits_and_chance_and_nothing_of_others(
    pair: list[model_runtime.LoadedModel],
) -> None:
    first, second = look(pair[0]), look(pair[1])
    for seen in (first, second):
        assert seen["session"] == seen["pid"] != os.getsid(0)
        assert seen["nice"] == os.nice(0) + 3
        assert (seen["core"], seen["faults"]) == (0, True)
        assert seen["oom"] == process_confinement.OOM_SCORE
        descriptors = seen["descriptors"]
        assert isinstance(descriptors, dict)
        kinds = sorted(link.partition(":")[0] for link in descriptors.values())
        assert kinds == ["/dev/null", "pipe", "pipe", "socket", "socket"]
    assert first["random"] != second["random"]


def test_memory_beyond_the_limit_is_an_error_and_no_death(
    pair: list[model_runtime.LoadedModel],
) -> None:
    with pytest.raises(errors.ModelRaised, match="MemoryError"):
        look(pair[0], LIMITS.data_bytes_max)
    assert look(pair[0])["pid"]


def test_the_worker_keeps_its_own_limits(pair: list[model_runtime.LoadedModel]) -> None:
    assert look(pair[0])
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY

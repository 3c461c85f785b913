"""Models that echo, sleep, raise, hang or take too much memory. All but two are Python classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e import zoo

TIGHT_BYTES = 384 << 20
TOO_MUCH_BYTES = 500 << 20
LOAD_TIMEOUT_S = 1.0
BLAME = "Gewicht für „Größe“ fehlt: 模型 ✗ 100% &\tend"


def entries(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return their `models:` entries. Their notes are files under `folder`/notes."""
    notes = folder / "notes"
    notes.mkdir()

    def python(name: str, source: str, **settings: Any) -> dict[str, Any]:
        uri = zoo.write_python(folder / name, source)
        return {
            "name": name,
            "uri": uri,
            "runtime": "python",
            "trust": True,
            "options": {"notes": str(notes / name)},
            **settings,
        }

    (folder / "corrupt.onnx").write_bytes(b"\x08\x08" + bytes(range(256)) * 8)
    with (folder / "huge.skops").open("wb") as file:
        file.truncate(64 << 20)
    zoo.write_onnx(folder / "linear2.onnx", 10)
    zoo.write_onnx(folder / "small.onnx", 7)
    return (
        python("identity", IDENTITY),
        python("sleeper", SLEEPER),
        python("moody", MOODY),
        python("pair", PAIR),
        python("fails-to-load", FAILS_TO_LOAD, pool="tight"),
        python("hangs", HANGS, pool="tight", load_timeout_s=LOAD_TIMEOUT_S),
        python("hangs-long", HANGS),
        python("sleeper-in-tight", SLEEPER, pool="tight"),
        python("takes-too-much", TAKES_TOO_MUCH, pool="tight"),
        {
            "name": "corrupt",
            "uri": str(folder / "corrupt.onnx"),
            "runtime": "onnx",
            "pool": "tight",
        },
        {"name": "huge", "uri": str(folder / "huge.skops"), "runtime": "sklearn", "pool": "tight"},
        {"name": "small", "uri": str(folder / "small.onnx"), "pool": "tight"},
        {
            "name": "linear",
            "version": "2",
            "uri": str(folder / "linear2.onnx"),
            "aliases": ["stable"],
        },
    )


def noted(folder: Path, name: str) -> list[str]:
    """Return the lines that a model noted."""
    path = folder / "notes" / name
    return path.read_text().splitlines() if path.exists() else []


NOTE = """
    def note(options, line):
        with open(options["notes"], "a") as file:
            file.write(line + "\\n")
"""

IDENTITY = f"""
    DATATYPES = {zoo.DATATYPES!r}

    class Model:
        inputs = [(name, name, [-1]) for name in DATATYPES]
        outputs = [(name, name, [-1]) for name in DATATYPES]

        def predict(self, inputs):
            return inputs
"""

SLEEPER = f"""
    import time
    {NOTE}
    class Model:
        inputs = [("seconds", "FP64", [1]), ("name", "BYTES", [1])]
        outputs = [("name", "BYTES", [1])]

        def __init__(self, path, options):
            self.options = options

        def predict(self, inputs):
            note(self.options, str(inputs["name"][0]))
            time.sleep(min(10.0, float(inputs["seconds"][0])))
            return {{"name": inputs["name"]}}
"""

MOODY = f"""
    class Model:
        inputs = [("x", "FP32", [-1])]
        outputs = [("y", "FP32", [-1])]

        def predict(self, inputs):
            if (inputs["x"] < 0).any():
                raise ValueError({BLAME!r})
            return {{"y": inputs["x"]}}
"""

PAIR = """
    class Model:
        inputs = [("a", "INT64", [-1, 2]), ("b", "INT64", [-1, 2])]
        outputs = [("sum", "INT64", [-1, 2]), ("difference", "INT64", [-1, 2])]
        batchable = True

        def predict(self, inputs):
            a, b = inputs["a"], inputs["b"]
            return {"sum": a + b, "difference": a - b}
"""

FAILS_TO_LOAD = f"""
    {NOTE}
    class Model:
        inputs = [("x", "FP32", [-1])]

        def __init__(self, path, options):
            note(options, "tried")
            raise RuntimeError({BLAME!r})

        def predict(self, inputs):
            return inputs
"""

HANGS = f"""
    import time
    {NOTE}
    class Model:
        inputs = [("x", "FP32", [-1])]

        def __init__(self, path, options):
            note(options, "tried")
            time.sleep(3600)

        def predict(self, inputs):
            return inputs
"""

TAKES_TOO_MUCH = f"""
    import time
    import numpy as np
    {NOTE}
    class Model:
        inputs = [("x", "FP32", [-1])]
        outputs = [("y", "FP32", [-1])]

        def __init__(self, path, options):
            note(options, "tried")
            self.weights = np.ones({TOO_MUCH_BYTES}, np.uint8)
            time.sleep(0.6)

        def predict(self, inputs):
            return {{"y": inputs["x"]}}
"""

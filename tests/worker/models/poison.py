"""Models that take their process down, in the six ways that happen, at a moment of choice."""

from __future__ import annotations

KINDS = {
    "segfault": "killed by SIGSEGV",
    "exit": "exit code 3",
    "abort": "killed by SIGABRT",
    "overflow": "killed by SIGSEGV",
    "bus": "killed by SIGBUS",
    "hog": "stopped: it took",
}
"""What the caller of each is told."""

MOMENTS = ("load", "probe", "predict")

POISONED = 66.0
"""The value of the first element of an input that kills a model whose moment is `predict`."""

SOURCE = """
    import ctypes, mmap, os, sys, tempfile
    import numpy as np

    def segfault():
        ctypes.string_at(0)

    def exit():
        os._exit(3)

    def abort():
        os.abort()

    def overflow():
        sys.setrecursionlimit(1 << 30)

        class Deep:
            def __repr__(self):
                return repr([self])

        # repr of a list recurses in C, so the interpreter's own limit does not end it.
        nested = []
        for _ in range(1 << 18):
            nested = [nested]
        repr(nested)

    def bus():
        with tempfile.TemporaryFile() as file:
            file.truncate(1 << 16)
            mapped = mmap.mmap(file.fileno(), 1 << 16)
            file.truncate(0)
            mapped[100]

    def spin():
        while True:
            pass

    def hog():
        taken = []
        while True:
            taken.append(np.ones(4 << 20, np.uint8))

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]

        def __init__(self, path, options):
            self.kind, self.moment = globals()[options["kind"]], options["moment"]
            self.act("load")

        def predict(self, inputs):
            self.act("probe")
            if inputs["x"].flat[0] == 66.0:
                self.act("predict")
            return {"y": inputs["x"] * 3}

        def act(self, moment):
            if moment == self.moment:
                self.kind()
"""

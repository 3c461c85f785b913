"""Hold one PyTorch model in a process of its own until it is ended.

    python -m bench.holders none|plain|mapped FILE

`plain` is a load as torch does it, `mapped` as meshserve does it where the file is its own, `none`
the library alone.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import pytorch

HOLDING = "holding"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=("none", "plain", "mapped"))
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    runtime = pytorch.TorchRuntime()
    runtime.prepare("cpu")
    if args.how != "none":
        artifact = model_runtime.Artifact(
            args.file, "", args.file.stat().st_size, is_cached=args.how == "mapped"
        )
        held = runtime.load(artifact, model.ModelSpec(model.ModelId("held"), ""), "cpu")
        held.predict(held.probe or {}, ())
    print(HOLDING, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()

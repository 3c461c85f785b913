"""The arguments, the end and the ONNX sessions of every peer's program.

ONNX Runtime has one thread, which is fastest for a tiny model.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import onnxruntime


def load(path: str) -> onnxruntime.InferenceSession:
    """Load the model in `path`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def arguments(text: str | None) -> argparse.Namespace:
    """Parse a peer's command line: a folder of NAME.onnx to serve as NAME, and a gRPC port.

    A peer serves the Open Inference Protocol's ModelInfer on the loopback interface until SIGTERM,
    and leaves no process behind.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument(
        "models",
        type=lambda folder: {path.stem: str(path) for path in sorted(Path(folder).glob("*.onnx"))},
    )
    parser.add_argument("port", type=int)
    return parser.parse_args()


def free_port() -> int:
    """Return a port for what a peer opens beside gRPC."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_by_sigterm() -> None:
    """Let SIGTERM unwind the program."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)

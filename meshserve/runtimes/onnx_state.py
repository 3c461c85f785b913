"""ONNX models of which a session of ONNX Runtime keeps something from one run to the next.

ONNX has no state. But `BatchNormalization` as in training gives new means and variances, and ONNX
Runtime (1.32 at least) writes these into the memory of the old ones, which are weights. Then an
answer depends on all requests before it, and one without rows makes all later ones NaN.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from meshserve import errors
from meshserve.runtimes import onnx_graph

SIZE_MAX = 64 << 20
"""Bigger files are refused: their bytes stay in memory, and each run opens a session of them."""

_KIND = b"\x12BatchNormalization"
_IN_TRAINING = b"\x0a\x0dtraining_mode\x18\x01"
"""The operator's name and its attribute with the value 1, as ONNX files have them."""

_BY_ATTRIBUTE = 14
"""The first operator set with that attribute. Before it, several outputs mean the same."""


def keeps_state(file: Path) -> bool:
    """Return whether a session of the file would keep what a request changes in it."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as content:
        # Operators inside of branches and functions are found by their bytes alone.
        if content.find(_IN_TRAINING) >= 0:
            return True
        # Most models have no such operator, so their graphs need not be read.
        return content.find(_KIND) >= 0 and _has_new_means(content[:])


def _has_new_means(content: bytes) -> bool:
    try:
        graph = onnx_graph.read(content)
    except onnx_graph.Unreadable:
        return False
    return graph.opset < _BY_ATTRIBUTE and any(
        node.kind == "BatchNormalization" and len(list(filter(None, node.outputs))) > 1
        for node in graph.nodes
    )


class ForgetfulSession:
    """A session that is opened anew for each run, so that no run sees another one.

    `reopen` takes the bytes of the file. Several threads may call.
    """

    def __init__(self, session: Any, content: bytes, reopen: Callable[[bytes], Any]) -> None:
        self._session = session
        self._content = content
        self._reopen = reopen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """Return the outputs, of any shapes, as a session does that never ran before."""
        outputs: list[Any] = self._reopen(self._content).run(names, inputs)
        return outputs


def forget_runs(session: Any, file: Path, reopen: Callable[[bytes], Any]) -> ForgetfulSession:
    """Return the file's session as one that keeps nothing. Raises LoadFailed if it is too big."""
    if file.stat().st_size > SIZE_MAX:
        raise errors.LoadFailed(
            f"{file.name} has BatchNormalization as in training, by which ONNX Runtime would let "
            "each request change the answers to later ones: export it in evaluation mode"
        )
    return ForgetfulSession(session, file.read_bytes(), reopen)

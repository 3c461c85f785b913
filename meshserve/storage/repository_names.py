"""What the names of files and folders in a repository stand for: models, versions, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from types import MappingProxyType

from meshserve.storage import model_uri

_WEIGHTS = (".onnx", ".ort", ".pt", ".pt2", ".pth", ".ubj", ".bst")
_PICKLES = (".skops", ".joblib", ".pkl", ".pickle")
ENDINGS = (*_WEIGHTS, *_PICKLES, ".py", *model_uri.ARCHIVES)
HEADS: Mapping[str, bytes] = MappingProxyType({".txt": b"tree", ".json": b"learner"})
"""Endings that other files have too, with a text in the first bytes of a model's file."""
HEAD_BYTES = 512
OTHER_FOLDERS = frozenset({"configs", "warmup", "initial_state", "__pycache__"})
"""Folders that Triton and Python keep beside those of versions."""
NO_VERSION = "it is no whole number of its own (with config.pbtxt, without zeros before it)"


def is_model_file(path: Path) -> bool:
    """Return whether a file that lies directly in a repository is a model.

    It is judged by its ending, and by its first bytes if other files have that ending too.
    """
    name = path.name.lower()
    if name.endswith(ENDINGS):
        return True
    text = HEADS.get(path.suffix.lower())
    if text is None:
        return False
    with path.open("rb") as stream:
        return text in stream.read(HEAD_BYTES)


def stem(name: str) -> str:
    """Return a file's name without its ending."""
    for ending in sorted(model_uri.ARCHIVES, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return PurePath(name).stem


def version_of(name: str, *, is_triton: bool) -> str:
    """Return the version that a folder's name stands for, "" if it stands for none.

    A whole number without zeros before it, as in Triton, which ignores others
    (docs/user_guide/model_repository.md). Without Triton's configuration the folder may be one of
    TF Serving, where `0000012` is version 12.
    """
    # For Python the digits of other scripts are decimal too.
    if not (name.isascii() and name.isdecimal()):
        return ""
    value = name.lstrip("0") or "0"
    return "" if is_triton and name != value else value

"""What a model's own files say against the arguments of its engine, before anything starts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

CONFIG = "config.json"
ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
MISTRALS = "params.json"
"""Mistral's own format, which vLLM reads too."""

LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""The keys of config.json from which vLLM takes a model's longest context.

Source: `_get_and_verify_max_len` in vllm/config/model.py.
"""


class FolderFault(NamedTuple):
    """A key of an LLM's section, as a path, and what is wrong with it."""

    key: tuple[str, ...]
    message: str


def faults(uri: str, engine: Mapping[str, object]) -> Iterator[FolderFault]:
    """Yield what is wrong with a local model for vLLM; nothing is known of others."""
    path = Path(uri)
    if "://" in uri or not path.exists():
        return
    # These formats have their configuration elsewhere.
    if any(key in engine for key in ("hf_config_path", "hf_overrides", "load_format")):
        return
    if path.is_file():
        yield FolderFault(("uri",), f"{uri} is a file; vLLM takes a folder with {CONFIG}")
        return
    if not (path / CONFIG).is_file():
        if not (path / MISTRALS).is_file():
            yield FolderFault(("uri",), f"there is no {CONFIG} in {uri}")
        return
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield FolderFault(("uri",), f"{path / CONFIG} can't be read: {error}")
        return
    if isinstance(config, dict):
        yield from _length_fault(config, engine.get("max_model_len"))


def _length_fault(config: Mapping[str, object], length: object) -> Iterator[FolderFault]:
    # With scaled positions the longest context is not the one of the key.
    scaling = [config.get(key) for key in ("rope_scaling", "rope_parameters")]
    if "factor" in json.dumps(scaling) or ALLOW_LONG in os.environ:
        return
    lengths = [value for key in LENGTHS if isinstance(value := config.get(key), int)]
    # Only a length beyond all of the keys is wrong for certain.
    if isinstance(length, int) and lengths and length > max(lengths):
        message = f"the model's longest context is {max(lengths)} tokens, by its {CONFIG}"
        yield FolderFault(("engine", "max_model_len"), message)

"""Samples: inputs that a model takes, written in config.yaml or kept in a file beside it."""

from __future__ import annotations

import importlib
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meshserve.config import diagnostics

ELEMENTS_MAX = 1 << 18
"""A sample travels with the model's declaration, so it must stay small."""

UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError),
    # What an archive raises that is damaged, encrypted, or compressed in an unknown way.
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError),
)


def read_sample(value: object, folder: Path | None) -> object:
    """Return the values of a sample by the inputs' names; a text names its file, `.json` or `.npz`.

    A relative name is one in `folder`. Raises ValueError for a file that can't be read.
    """
    if not isinstance(value, str):
        return value
    try:
        file = Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None
    if not file.is_absolute():
        if folder is None:
            raise ValueError(f"expected values or an absolute path, got {diagnostics.shown(value)}")
        file = folder / file
    try:
        return _read_arrays(file) if file.suffix == ".npz" else json.loads(file.read_text("utf-8"))
    except UNREADABLE as error:
        raise ValueError(f"{file} can't be read as {file.suffix or 'JSON'}: {error}") from None


def check_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values. Raises ValueError if they are too many, or one is no number of JSON."""
    elements = list(_elements(list(values.values())))
    if len(elements) > ELEMENTS_MAX:
        raise ValueError(f"a sample has up to {ELEMENTS_MAX:,} values, this one {len(elements):,}")
    # A configuration is kept as JSON, which would make `null` of infinity.
    if not all(math.isfinite(element) for element in elements if isinstance(element, float)):
        raise ValueError("a sample has no infinite numbers, and `null` for a missing one")
    return values


def _elements(nested: object) -> Iterator[object]:
    if not isinstance(nested, list):
        yield nested
        return
    for part in nested:
        yield from _elements(part)


def _read_arrays(file: Path) -> dict[str, Any]:
    # Commands that read a configuration start in half the time without numpy.
    numpy = importlib.import_module("numpy")
    with file.open("rb") as stream:
        # Of other files numpy makes a single array, or speaks of pickles.
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no archive of arrays, as numpy.savez writes it")
        stream.seek(0)
        # Pickled arrays are code, and numpy reads none here.
        with numpy.load(stream, allow_pickle=False) as arrays:
            return {name: _as_json(numpy, arrays[name]) for name in arrays.files}


def _as_json(numpy: Any, array: Any) -> Any:
    """Return an array of any shape as nested values."""
    # numpy returns the bytes of an entry that is no array.
    if isinstance(array, bytes):
        raise ValueError("it has entries that are no arrays")  # noqa: TRY004 it is a file's fault
    if array.dtype.kind == "S":
        array = numpy.char.decode(array, "utf-8")
    if array.dtype.kind == "f":
        # JSON has no number for what is missing.
        gaps = numpy.isnan(array)
        if gaps.any():
            array = array.astype(object)
            array[gaps] = None
    return array.tolist()

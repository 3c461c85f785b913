"""Libraries that are imported when the first model that needs them is loaded."""

from __future__ import annotations

import importlib
from typing import Any

from meshserve import errors


def require(module: str, library: str, extra: str) -> Any:
    """The module, imported. Raises MissingExtra with the command that installs it, LoadFailed if it is there but broken."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise errors.LoadFailed(f"{library} can't be imported: {error}") from error
        raise errors.MissingExtra(
            f"this model needs {library}: pip install 'meshserve[{extra}]'"
        ) from error
    except ImportError as error:
        raise errors.LoadFailed(f"{library} can't be imported: {error}") from error

"""Say what to do about a class that a pickle names and that is not importable here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from meshserve.runtimes import files

_NOT_FOUND = re.compile(
    r"Can't get attribute '(?P<name>[^']+)' on <module '(?P<module>[^']+)'"
    r"|module '(?P<other_module>[^']+)' has no attribute '(?P<other_name>[^']+)'"
)
"""The two forms of what pickle says of a class that it does not find."""


def explain(file: Path, error: AttributeError) -> str:
    """Return what to do, for the file whose reading raised the error."""
    names = _NOT_FOUND.search(str(error))
    if names is None:
        return f"{file.name} can't be read: AttributeError: {files.summarize(error)}"
    name, module = names["name"] or names["other_name"], names["module"] or names["other_module"]
    if module == "__main__":
        return (
            f"{file.name} needs {name!r} of the script that made it (it says __main__): define "
            f"{name!r} in a module that is installed where the mesh runs, import it in the "
            "script, and save the model again"
        )
    if _is_in_file(name, module):
        return (
            f"{file.name} needs {name!r} of the module {module!r}, whose file has it now; this "
            "process imported the module before that, and Python imports it once: restart the mesh"
        )
    return (
        f"{file.name} needs {name!r} of the module {module!r}, which lacks it here: "
        "install the version of the module that made the file"
    )


def _is_in_file(name: str, module: str) -> bool:
    """Return whether the source of a module that is imported names the class by now."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not file.endswith(".py"):
        return False
    try:
        source = Path(file).read_text()
    except (OSError, UnicodeDecodeError):
        return False
    last = re.escape(name.rpartition(".")[2])
    return re.search(rf"^\s*(class|def)\s+{last}\b|^{last}\s*=", source, re.MULTILINE) is not None

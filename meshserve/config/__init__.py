"""Read, check and freeze the configuration file.

This package starts nothing: it only reads files and the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from meshserve import errors
from meshserve.config import (
    diagnostics,
    fields,
    name_conflicts,
    schema,
    schema_errors,
    yaml_positions,
)
from meshserve.config.diagnostics import Diagnostic
from meshserve.config.model_schema import ModelSection
from meshserve.config.schema import Config, home

__all__ = [
    "Config",
    "Diagnostic",
    "ModelSection",
    "document",
    "home",
    "json_schema",
    "load",
    "load_elsewhere",
    "parse",
    "parse_model",
    "variable_of",
]

SectionT = TypeVar("SectionT", bound=fields.Section)
Check = Callable[[Config], Iterable[Diagnostic]]

VARIABLE = "\0variable:"
"""Before the name of a variable that is not read. No key of a file begins so: YAML has no NUL."""


def load(path: str | os.PathLike[str], check: Check = lambda _: ()) -> Config:
    """Return the configuration in a file.

    `check` yields further faults of a configuration that is valid otherwise. Raises ConfigInvalid,
    with one line `file:line: field: …` for each fault.
    """
    # Relative paths begin at the file's folder; a document from elsewhere may have none.
    context = {"folder": Path(os.fspath(path)).absolute().parent, "environ": os.environ}
    return _load(path, context, check)[0]


def load_elsewhere(
    path: str | os.PathLike[str], check: Check = lambda _: ()
) -> tuple[Config, dict[str, Any]]:
    """Return the configuration in a file for other machines, and the file's content as it is.

    Paths must be absolute and need not exist here. Variables of the environment are not read:
    `variable_of` tells which one stands for a key. Raises ConfigInvalid as `load` does.
    """
    return _load(path, {"environ": _Variables()}, check)


def variable_of(key: str) -> str | None:
    """Return the variable that holds a key of `load_elsewhere`; None if the file holds the key."""
    return key.removeprefix(VARIABLE) if key.startswith(VARIABLE) else None


class _Variables:
    """An environment in which each variable is set."""

    def get(self, name: str) -> str:
        return f"{VARIABLE}{name}"


def _load(
    path: str | os.PathLike[str], context: dict[str, Any], check: Check
) -> tuple[Config, dict[str, Any]]:
    file = os.fspath(path)
    positioned = yaml_positions.read(_text(file), file)
    content = positioned.document
    if not isinstance(content, dict):
        raise errors.ConfigInvalid(
            f"{file}:{positioned.line(())}: expected a mapping of keys such as `models:`, "
            f"got {diagnostics.shown(content)}"
        )
    config, faults = _validate(schema.Config, content, context)
    faults = [*positioned.repeated, *faults, *name_conflicts.check(content)]
    # Last, because these checks may ask the network, or start a child process for seconds.
    if config is not None and not faults:
        faults = list(check(config))
    if config is None or faults:
        faults.sort(key=lambda fault: positioned.line(fault.path))
        raise errors.ConfigInvalid(
            "\n".join(_with_position(fault, positioned, file) for fault in faults)
        )
    return config, content


def parse(document: Mapping[str, Any]) -> Config:
    """Return the configuration in a JSON document such as `document` returns.

    Paths must be absolute and need not exist on this machine. Raises ConfigInvalid, with one line
    for each fault.
    """
    config, faults = _validate(schema.Config, document, {})
    return _unless_faulty(config, [*faults, *name_conflicts.check(document)])


def parse_model(entry: Mapping[str, Any], *, may_read: bool = True) -> ModelSection:
    """Return one entry of `models:`, as the management API takes it.

    The name of its pool is not checked. Without `may_read` a sample must be given by its values,
    and not by a file's name. Raises ConfigInvalid, with one line for each fault.
    """
    return _unless_faulty(*_validate(ModelSection, entry, {"may_read": may_read}))


def document(config: Config) -> dict[str, Any]:
    """Return the JSON document from which `parse` makes an equal configuration.

    It holds the API keys. Keys that have their default are left out.
    """
    return {
        # Included even if it is the default: another process may have another MESHSERVE_HOME.
        "state_dir": str(config.state_dir),
        **config.model_dump(mode="json", exclude_defaults=True),
    }


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of config.yaml, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema.Config.model_json_schema(),
    }


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise errors.ConfigInvalid(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        raise errors.ConfigInvalid(f"{file}: not UTF-8 text (byte {error.start})") from None


def _validate(
    section: type[SectionT], content: Any, context: dict[str, Any]
) -> tuple[SectionT | None, list[Diagnostic]]:
    try:
        return section.model_validate(content, context=context), []
    except pydantic.ValidationError as error:
        return None, [
            schema_errors.diagnostic(section, details)
            for details in error.errors(include_url=False)
        ]


def _unless_faulty(section: SectionT | None, faults: list[Diagnostic]) -> SectionT:
    if section is None or faults:
        raise errors.ConfigInvalid("\n".join(map(_without_position, faults)))
    return section


def _with_position(
    fault: Diagnostic, positioned: yaml_positions.PositionedDocument, file: str
) -> str:
    line = positioned.line(fault.path)
    text = f"{file}:{line}: {diagnostics.field(fault.path)}: {fault.message}"
    if fault.earlier is None:
        return text
    earlier = diagnostics.field(fault.earlier)
    return f"{text}; first as {earlier} on line {positioned.line(fault.earlier)}"


def _without_position(fault: Diagnostic) -> str:
    earlier = "" if fault.earlier is None else f"; first as {diagnostics.field(fault.earlier)}"
    return f"{diagnostics.field(fault.path) or 'the document'}: {fault.message}{earlier}"

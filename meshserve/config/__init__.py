"""config.yaml ↔ frozen values. Reads files and the environment, starts nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from meshserve import errors
from meshserve.config import checks, diagnostics, reference, sections, values, yaml_positions
from meshserve.config.diagnostics import Diagnostic
from meshserve.config.llm_schema import LlmSection
from meshserve.config.schema import (
    CacheSection,
    Config,
    GatewaySection,
    KeySection,
    ModelSection,
    PoolSection,
    RegistrySection,
    RepositorySection,
    TensorSection,
    home,
)

__all__ = [
    "CacheSection", "Config", "Diagnostic", "GatewaySection", "KeySection", "LlmSection", "ModelSection",
    "PoolSection", "RegistrySection", "RepositorySection", "TensorSection",
    "document", "home", "json_schema", "load", "parse", "parse_model", "parse_size", "reference_markdown",
]  # fmt: skip

SectionT = TypeVar("SectionT", bound=sections.Section)

json_schema = reference.json_schema
reference_markdown = reference.markdown
parse_size = values.parse_size


def load(
    path: str | os.PathLike[str], judge: Callable[[Config], Iterable[Diagnostic]] = lambda _: ()
) -> Config:
    """The configuration in a file. Raises ConfigInvalid with all that is wrong, one `file:line: field: …` a line.

    `judge` is asked about one that is good so far, and says what else is wrong with it.
    """
    file = os.fspath(path)
    marked = yaml_positions.read(_text(file), file)
    if not isinstance(marked.document, dict):
        raise errors.ConfigInvalid(
            f"{file}:{marked.line(())}: expected a mapping of keys such as `models:`, got {diagnostics.shown(marked.document)}"
        )
    folder = Path(file).absolute().parent
    config, found = _validated(Config, marked.document, {"folder": folder, "environ": os.environ})
    found = [*marked.repeated, *found, *checks.across(marked.document)]
    if config is not None and not found:
        found = list(judge(config))
    if config is None or found:
        placed = sorted(found, key=lambda fault: marked.line(fault.path))
        raise errors.ConfigInvalid("\n".join(_placed(fault, marked, file) for fault in placed))
    return config


def parse(document: Mapping[str, Any]) -> Config:
    """The configuration in a JSON document such as `document` writes. Paths must be absolute; none is looked for. Raises ConfigInvalid."""
    config, found = _validated(Config, document, {})
    return _unless_faulty(config, [*found, *checks.across(document)])


def parse_model(entry: Mapping[str, Any]) -> ModelSection:
    """One entry of `models:`, as the management API takes it. Raises ConfigInvalid; whether its pool exists is not checked."""
    return _unless_faulty(*_validated(ModelSection, entry, {}))


def document(config: Config) -> dict[str, Any]:
    """What `parse` reads back to an equal configuration, ready for JSON. It holds the API keys."""
    return {
        "state_dir": str(config.state_dir),
        **config.model_dump(mode="json", exclude_defaults=True),
    }


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise errors.ConfigInvalid(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        raise errors.ConfigInvalid(f"{file}: not UTF-8 text (byte {error.start})") from None


def _validated(
    root: type[SectionT], given: Any, context: dict[str, Any]
) -> tuple[SectionT | None, list[diagnostics.Diagnostic]]:
    try:
        return root.model_validate(given, context=context), []
    except pydantic.ValidationError as error:
        return None, [checks.of_schema(root, found) for found in error.errors(include_url=False)]


def _unless_faulty(section: SectionT | None, found: list[diagnostics.Diagnostic]) -> SectionT:
    if section is None or found:
        raise errors.ConfigInvalid("\n".join(map(_unplaced, found)))
    return section


def _placed(
    fault: diagnostics.Diagnostic, marked: yaml_positions.PositionedDocument, file: str
) -> str:
    earlier = (
        ""
        if fault.earlier is None
        else f"; first as {diagnostics.field(fault.earlier)} on line {marked.line(fault.earlier)}"
    )
    return f"{file}:{marked.line(fault.path)}: {diagnostics.field(fault.path)}: {fault.message}{earlier}"


def _unplaced(fault: diagnostics.Diagnostic) -> str:
    earlier = "" if fault.earlier is None else f"; first as {diagnostics.field(fault.earlier)}"
    return f"{diagnostics.field(fault.path) or 'the document'}: {fault.message}{earlier}"

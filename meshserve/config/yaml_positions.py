"""Read YAML, and keep the line of each key and each list entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from meshserve import errors
from meshserve.config import diagnostics

# libyaml reads thousands of models ten times faster. PyYAML may be built without it.
Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class PositionedDocument(NamedTuple):
    """A document, the line of each path in it, counted from 1, and its repeated keys."""

    document: Any
    lines: dict[diagnostics.Path, int]
    repeated: tuple[diagnostics.Diagnostic, ...]

    def line(self, path: diagnostics.Path) -> int:
        """Return the line of `path`, or of the nearest enclosing entry that has one."""
        while path:
            # A key such as an unquoted 1 is a number in the path, but text in `lines`.
            for known in (path, (*path[:-1], str(path[-1]))):
                if known in self.lines:
                    return self.lines[known]
            path = path[:-1]
        return self.lines[()]


def read(text: str, file: str) -> PositionedDocument:
    """Parse YAML. Raises ConfigInvalid for an empty file or a syntax error, with its position."""
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise errors.ConfigInvalid(
                f"{file}: the file is empty; "
                "a smallest one is `models: [{name: NAME, uri: FILE}]`"
            )
        lines: dict[diagnostics.Path, int] = {(): node.start_mark.line + 1}
        repeated = tuple(_walk(node, (), lines, ()))
        return PositionedDocument(loader.construct_document(node), lines, repeated)
    except yaml.MarkedYAMLError as error:
        raise errors.ConfigInvalid(_syntax_error(error, file)) from None
    except yaml.reader.ReaderError as error:
        # libyaml counts bytes, not characters.
        line = text.encode()[: error.position].count(b"\n") + 1
        raise errors.ConfigInvalid(f"{file}:{line}: invalid YAML: {error.reason}") from None
    finally:
        loader.dispose()


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    context = f" ({error.context})" if error.context else ""
    return f"{file}{place}: invalid YAML: {error.problem}{context}"


def _walk(
    node: yaml.Node,
    path: diagnostics.Path,
    lines: dict[diagnostics.Path, int],
    ancestors: tuple[yaml.Node, ...],
) -> Iterator[diagnostics.Diagnostic]:
    """Fill `lines` and yield repeated keys. Raises ConstructorError for a node inside itself."""
    # An alias may refer to a node that encloses it, which would be an endless document.
    if node in ancestors:
        raise yaml.constructor.ConstructorError(
            None, None, "a value that contains itself", node.start_mark
        )
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*path, index] = item.start_mark.line + 1
            yield from _walk(item, (*path, index), lines, (*ancestors, node))
    elif isinstance(node, yaml.MappingNode):
        yield from _walk_mapping(node, path, lines, (*ancestors, node))


def _walk_mapping(
    node: yaml.MappingNode,
    path: diagnostics.Path,
    lines: dict[diagnostics.Path, int],
    ancestors: tuple[yaml.Node, ...],
) -> Iterator[diagnostics.Diagnostic]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value)
        line = key.start_mark.line + 1
        # A mapping may merge several others, each by a key `<<` of its own.
        if name in seen and key.tag != "tag:yaml.org,2002:merge":
            yield diagnostics.Diagnostic(
                (*path, name), f"given twice: first on line {seen[name]}, again on line {line}"
            )
        seen.setdefault(name, line)
        lines[*path, name] = line
        yield from _walk(value, (*path, name), lines, ancestors)

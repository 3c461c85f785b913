"""Which module imports which, and the circles among them."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imports_of(
    tree: ast.Module, module: str, *, is_package: bool, known: set[str]
) -> tuple[set[str], set[str], set[str]]:
    """Return the modules of this tree imported at once, those imported later, and outside names."""
    now: set[str] = set()
    deferred: set[str] = set()
    outside: set[str] = set()
    for node, is_late in _walk_imports(tree):
        for target in _import_targets(node, module, is_package=is_package):
            inside = _longest_known(target, known)
            if inside is None:
                outside.add(target.split(".", maxsplit=1)[0])
            elif inside != module:
                (deferred if is_late else now).add(inside)
    return now, deferred, outside - {module.split(".", maxsplit=1)[0]}


def _walk_imports(
    node: ast.AST, *, is_late: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, is_late
        else:
            yield from _walk_imports(child, is_late=is_late or _runs_later(child))


def _runs_later(node: ast.AST) -> bool:
    """Tell whether it is a function's body, or a block that only a type checker reads."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _import_targets(
    node: ast.Import | ast.ImportFrom, module: str, *, is_package: bool
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = module.split(".") if module else []
        drop = node.level - 1 if is_package else node.level
        base = ".".join([*parts[: len(parts) - drop], *filter(None, [base])])
    yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _longest_known(target: str, known: set[str]) -> str | None:
    while target:
        if target in known:
            return target
        target = target.rpartition(".")[0]
    return None


def cycles_in(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of two or more modules that can each reach all the others."""
    reach = {module: _reachable(module, graph) for module in graph}
    cycles = {
        tuple(sorted(other for other in reach[module] if module in reach.get(other, ())))
        for module in graph
        if module in reach[module]
    }
    return [list(cycle) for cycle in sorted(cycles) if len(cycle) > 1]


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = graph.get(waiting.pop(), set()) - seen
        seen |= fresh
        waiting.extend(fresh)
    return seen

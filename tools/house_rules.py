"""The rules of CONTRIBUTING.md that a program can check in the syntax tree of one file.

    python -m tools.house_rules meshserve          # every breach, and a count a rule

Each rule is a function from a parsed file to what breaks it, as "line: reason".
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tools import measure_style, module_facts

FILLERS = frozenset({"each", "there", "found", "told", "of", "made"})
ARRAY = re.compile(r"\b(ndarray|NDArray|ArrayLike|Arrays?|Tensors?)\b")
SAYS_SHAPE = re.compile(
    r"\b(shapes?|dtypes?|datatypes?|rows?|scalars?|dimensions?)\b", re.IGNORECASE
)
SAYS_RAISES = re.compile(r"(?i)\brais(es?|ing)\b")
# Some proper names begin with a small letter.
STARTS_WELL = re.compile(r"[A-Z`\"'0-9(]|vLLM\b|gRPC\b|scikit-learn\b|jemalloc\b|glibc\b")
ENDS_WELL = (".", "?", "!", "…", ".)", '."', ".`")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

Rule = Callable[[ast.Module], Iterator[str]]


def filler_names(tree: ast.Module) -> Iterator[str]:
    """Yield parameters and variables whose names fit anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.MatchAs | ast.MatchStar):
            name = node.name or ""
        else:
            continue
        if name in FILLERS:
            yield f"{node.lineno}: {name}"


def unsaid_raises(tree: ast.Module) -> Iterator[str]:
    """Yield public functions that raise in their own body and do not say so in their docstring.

    A bare `raise` passes on what others raise, and an AssertionError is a bug of ours: neither is
    part of a function's promise.
    """
    for node, is_public in module_facts.walk_functions(tree):
        if not is_public or not any(_own_raises(node)):
            continue
        if not SAYS_RAISES.search(ast.get_docstring(node) or ""):
            yield f"{node.lineno}: {node.name}"


def _own_raises(function: module_facts.Function) -> Iterator[ast.Raise]:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise):
            if node.exc is not None and "AssertionError" not in ast.unparse(node.exc):
                yield node
        elif not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            waiting.extend(ast.iter_child_nodes(node))


def unsaid_shapes(tree: ast.Module) -> Iterator[str]:
    """Yield public functions that take or return arrays and say neither shape nor dtype."""
    for node, is_public in module_facts.walk_functions(tree):
        parameters = module_facts.parameters_of(node)
        annotations = [*(parameter.annotation for parameter in parameters), node.returns]
        if not is_public or not any(
            ARRAY.search(ast.unparse(annotation)) for annotation in annotations if annotation
        ):
            continue
        if not SAYS_SHAPE.search(ast.get_docstring(node) or ""):
            yield f"{node.lineno}: {node.name}"


def unfinished_docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield docstrings that do not start with a capital or do not end with a full stop.

    A docstring may end with an indented block: an example, or a diagram.
    """
    for node in ast.walk(tree):
        if not isinstance(node, DOCUMENTED):
            continue
        text = ast.get_docstring(node, clean=False)
        if text is None:
            continue
        first, *others = text.strip().splitlines() or [""]
        last = others[-1] if others else first
        is_block = bool(others) and len(last) - len(last.lstrip()) > node.body[0].col_offset
        if not STARTS_WELL.match(first) or not (is_block or last.endswith(ENDS_WELL)):
            yield f"{node.body[0].lineno}: {getattr(node, 'name', 'the module')}"


def loose_tasks(tree: ast.Module) -> Iterator[str]:
    """Yield calls that start a task which nobody keeps: `create_task` but for a TaskGroup's."""
    groups = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "TaskGroup" in ast.unparse(item)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        if name in {"create_task", "ensure_future"} and owner not in groups:
            yield f"{node.lineno}: {called}"


RULES: dict[str, Rule] = {
    "filler names": filler_names,
    "raises unsaid": unsaid_raises,
    "shapes unsaid": unsaid_shapes,
    "docstrings unfinished": unfinished_docstrings,
    "tasks loose": loose_tasks,
}


def breaches(rule: Rule, root: Path) -> dict[str, list[str]]:
    """Return what breaks a rule in the files under `root`, by the path relative to `root`."""
    parsed = {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in measure_style.python_files(root, {"pb"})
    }
    found_at = {name: list(rule(tree)) for name, tree in parsed.items()}
    return {name: breaks for name, breaks in found_at.items() if breaks}


def main() -> int:
    """Print every breach in the folders of the command line; 1 if there is any."""
    total = 0
    for root in map(Path, sys.argv[1:]):
        for name, rule in RULES.items():
            by_file = breaches(rule, root)
            count = sum(map(len, by_file.values()))
            print(f"{root}: {name}: {count} in {len(by_file)} files")
            for path, breaks in by_file.items():
                print(f"  {path}  " + "; ".join(breaks))
            total += count
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())

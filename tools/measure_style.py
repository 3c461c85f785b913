"""Measure the style of Python trees, one column a tree.

    python -m tools.measure_style meshserve tests             # a table
    python -m tools.measure_style --worst 10 meshserve        # and the longest functions
    python -m tools.measure_style --without tests distributed # leave out folders of that name
    python -m tools.measure_style --json meshserve            # for programs

It needs only the standard library. It must run on a Python at least as new as the syntax that it
reads: files that it can't parse are counted and named, never guessed at.

What the words mean:
  code line        a line holding a token that is neither a comment nor a docstring
  function length  from `def` to the last line; "code" leaves out blanks, comments, docstring;
                   @overload stubs are not functions here
  public           no leading underscore on the name or on any class around it, and not
                   nested in a function (dunder methods are left out)
  nesting          if/for/while/with/try/match inside one function; `elif` adds nothing
  import cycle     a strongly connected set of modules, by imports that run when the module
                   is imported; "with deferred" adds those in functions and TYPE_CHECKING
  I/O-free         a module that imports nothing of EFFECTFUL, calls nothing of EFFECTFUL_CALLS
  vague name       a module called utils and the like, a class ending in Manager and the like
  test             a function test* in a file test_*.py or *_test.py
  mock word        a use of Mock, patch, monkeypatch and the like
"""

from __future__ import annotations

import argparse
import json
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tools import import_graph, module_facts
from tools.module_facts import FunctionFacts, ModuleFacts

SKIPPED_DIRS = {
    "__pycache__",
    "build",
    "dist",
    "node_modules",
    "site-packages",
    "_vendor",
    "vendor",
}
GENERATED = ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi", "_grpc.py")
LONG_FUNCTION_LINES = 50
DEEP_NESTING = 3

Figures = dict[str, float | None]


@dataclass
class Measured:
    """The figures of one tree, and what lies behind them."""

    root: Path
    figures: Figures
    unreadable: list[str] = field(default_factory=list)
    longest: list[tuple[int, str]] = field(default_factory=list)
    cycles: list[list[str]] = field(default_factory=list)


def measure(root: Path, without: set[str]) -> Measured:
    """Measure every Python file under `root`, but for files and folders named in `without`."""
    names = {path: module_name(path, root) for path in python_files(root, without)}
    known = set(names.values())
    modules: list[ModuleFacts] = []
    unreadable: list[str] = []
    for path, name in names.items():
        try:
            modules.append(module_facts.read_module(path, name, known))
        except (SyntaxError, tokenize.TokenError, RecursionError):
            unreadable.append(str(path))
    return Measured(
        root,
        {**summarise(modules), "unreadable files": len(unreadable)},
        unreadable,
        [(function.code_lines, function.where) for m in modules for function in m.functions],
        import_graph.cycles_in({m.name: m.imports_now for m in modules}),
    )


def python_files(root: Path, without: set[str]) -> Iterator[Path]:
    """Yield the files that people wrote under `root`, or `root` itself if it is a file."""
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root).parts
        hidden = any(part in SKIPPED_DIRS | without or part.startswith(".") for part in inside)
        if not hidden and not path.name.endswith(GENERATED):
            yield path


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name, counted from the topmost package that holds the root."""
    top = root.resolve()
    if top.is_file():
        top = top.parent
    while (top / "__init__.py").exists():
        top = top.parent
    parts = list(path.resolve().relative_to(top).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def summarise(modules: list[ModuleFacts]) -> Figures:
    """Return every figure of a tree by its name."""
    functions = [function for module in modules for function in module.functions]
    code = sum(module.code_lines for module in modules)
    habits: Counter[str] = Counter()
    for module in modules:
        habits.update(module.counts)
    return {
        "files": len(modules),
        "lines": sum(module.lines for module in modules),
        "code lines": code,
        **function_figures(functions),
        **file_figures(modules),
        **writing_figures(modules, functions),
        **graph_figures(modules),
        "I/O-free code, %": percent(sum(m.code_lines for m in modules if m.io_free), code),
        "type: ignore per 1000 code": per_thousand(habits["type_ignore"], code),
        "broad excepts per 1000 code": per_thousand(habits["broad_except"], code),
        "unfinished marks per 1000 code": per_thousand(habits["unfinished"], code),
        **test_figures([function for function in functions if function.is_test], habits),
    }


def function_figures(functions: list[FunctionFacts]) -> Figures:
    """Return lengths, parameters and nesting of functions."""
    lengths = [function.lines for function in functions]
    code_lengths = [function.code_lines for function in functions]
    parameters = [function.parameters for function in functions]
    deep = sum(function.nesting > DEEP_NESTING for function in functions)
    return {
        "functions": len(functions),
        "function length, median": mid(lengths),
        "function length, p90": p90(lengths),
        "function length, max": max(lengths, default=0),
        "function code, median": mid(code_lengths),
        "function code, p90": p90(code_lengths),
        "function code, max": max(code_lengths, default=0),
        "functions over 50 code lines": sum(n > LONG_FUNCTION_LINES for n in code_lengths),
        "parameters, median": mid(parameters),
        "parameters, p90": p90(parameters),
        "parameters, max": max(parameters, default=0),
        "deepest nesting": max((function.nesting for function in functions), default=0),
        "functions nested over 3, %": percent(deep, len(functions)),
    }


def file_figures(modules: list[ModuleFacts]) -> Figures:
    """Return lengths of files and the depth of folders."""
    lengths = [module.lines for module in modules if module.lines]
    dots = [module.name.count(".") for module in modules]
    return {
        "file length, median": mid(lengths),
        "file length, p90": p90(lengths),
        "file length, max": max(lengths, default=0),
        "deepest folder": max(dots, default=0) - min(dots, default=0),
    }


def writing_figures(modules: list[ModuleFacts], functions: list[FunctionFacts]) -> Figures:
    """Return how much is documented, commented and annotated."""
    public = [function for function in functions if function.public and not function.is_test]
    classes = sum(module.public_classes for module in modules)
    with_code = [module for module in modules if module.code_lines]
    comments = sum(module.comment_lines for module in modules)
    names = [name for module in modules for name in module.names]
    docstrings = [
        function.docstring_lines
        for function in functions
        if function.docstring_lines and not function.is_test
    ]
    return {
        "public functions documented, %": percent(
            sum(function.docstring_lines > 0 for function in public), len(public)
        ),
        "public classes documented, %": percent(
            sum(module.documented_classes for module in modules), classes
        ),
        "modules documented, %": percent(
            sum(module.documented for module in with_code), len(with_code)
        ),
        "docstring lines, median": mid(docstrings),
        "docstring lines, p90": p90(docstrings),
        "vague names, %": percent(sum(map(module_facts.is_vague, names)), len(names)),
        "comment lines per 100 code": percent(comments, sum(m.code_lines for m in modules)),
        "annotated, %": percent(
            sum(function.annotated for function in functions),
            sum(function.slots for function in functions),
        ),
    }


def graph_figures(modules: list[ModuleFacts]) -> Figures:
    """Return import cycles and names that are bound at the root."""
    cycles = import_graph.cycles_in({m.name: m.imports_now for m in modules})
    hidden = import_graph.cycles_in({m.name: m.imports_now | m.imports_deferred for m in modules})
    root = min(modules, key=lambda module: module.name.count("."), default=None)
    return {
        "public names": sum(module.public_names for module in modules),
        "names bound at the root": root.bound_names if root else 0,
        "import cycles": len(cycles),
        "modules in a cycle": sum(map(len, cycles)),
        "cycles with deferred": len(hidden),
        "modules in those": sum(map(len, hidden)),
        "deferred imports of own modules": sum(len(m.imports_deferred) for m in modules),
    }


def test_figures(tests: list[FunctionFacts], habits: Counter[str]) -> Figures:
    """Return lengths and habits of tests; None for all where there are no tests."""
    keys = {
        "asserts per test": "asserts",
        "mock words per test": "mocks",
        "sleep calls per test": "sleeps",
    }
    lengths = [test.code_lines for test in tests]
    return {
        "tests": len(tests),
        "test code, median": mid(lengths) if tests else None,
        "test code, p90": p90(lengths) if tests else None,
        **{
            name: round(habits[key] / len(tests), 2) if tests else None
            for name, key in keys.items()
        },
        "property tests (given)": habits["given"] if tests else None,
        "parametrize": habits["parametrize"] if tests else None,
    }


def mid(numbers: list[int]) -> float:
    """Return the median, or 0 of nothing."""
    return median(numbers) if numbers else 0


def p90(numbers: list[int]) -> int:
    """Return the smallest value that at least nine tenths of the numbers do not exceed."""
    return sorted(numbers)[-(-len(numbers) * 9 // 10) - 1] if numbers else 0


def percent(part: int, whole: int) -> float:
    """Return the share in per cent, or 0 of nothing."""
    return round(100 * part / whole, 1) if whole else 0.0


def per_thousand(part: int, whole: int) -> float:
    """Return the share in thousandths, or 0 of nothing."""
    return round(1000 * part / whole, 2) if whole else 0.0


def main() -> int:
    """Measure the trees named on the command line."""
    parser = argparse.ArgumentParser(description="Measure the style of Python trees.")
    parser.add_argument("roots", nargs="+", type=Path, metavar="DIR_OR_FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON list, not a table")
    parser.add_argument(
        "--without", action="append", default=[], metavar="NAME", help="skip folders or files"
    )
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="name each tree's N longest functions"
    )
    parser.add_argument("--cycles", action="store_true", help="name the modules of each cycle")
    options = parser.parse_args()
    trees = [measure(root, set(options.without)) for root in options.roots]
    if options.json:
        print(json.dumps([{"tree": tree.root.name, **tree.figures} for tree in trees], indent=2))
        return 0
    print_table(trees)
    for tree in trees:
        print_details(tree, options.worst, show_cycles=options.cycles)
    return 0


def print_table(trees: list[Measured]) -> None:
    """Print a row a figure and a column a tree."""
    rows = {"tree": [tree.root.name for tree in trees]}
    for key in trees[0].figures:
        values = [tree.figures[key] for tree in trees]
        rows[key] = ["" if value is None else str(value) for value in values]
    widths = [max(map(len, column)) for column in zip(*rows.values(), strict=True)]
    for key, cells in rows.items():
        shown = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"{key:34}{shown}")


def print_details(tree: Measured, longest: int, *, show_cycles: bool) -> None:
    """Print what a tree's figures hide: files that can't be read, long functions, cycles."""
    print(f"{tree.root.name}: {tree.root}")
    for path in tree.unreadable:
        print(f"unreadable: {path}", file=sys.stderr)
    for length, where in sorted(tree.longest, reverse=True)[:longest]:
        print(f"{length:5}  {where}")
    for cycle in tree.cycles if show_cycles else ():
        print(f"cycle: {' '.join(cycle)}")


if __name__ == "__main__":
    sys.exit(main())

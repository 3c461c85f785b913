"""What the syntax tree and the tokens of one Python file say about its style."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools import import_graph

Function = ast.FunctionDef | ast.AsyncFunctionDef

# fmt: off
EFFECTFUL = {
    "aiohttp", "anyio", "asyncio", "concurrent", "fastapi", "grpc", "http", "httpx", "mmap",
    "multiprocessing", "os", "queue", "random", "ray", "requests", "select", "shutil", "signal",
    "socket", "sqlite3", "ssl", "starlette", "subprocess", "tempfile", "threading", "time",
    "torch", "trio", "urllib", "uvicorn", "vllm", "zmq",
}
EFFECTFUL_CALLS = {
    "open", "print", "input", "read_text", "write_text", "read_bytes", "write_bytes", "mkdir",
    "unlink",
}
VAGUE_ENDINGS = (
    "Manager", "Helper", "Handler", "Processor", "Util", "Utils", "Impl", "Info", "Wrapper",
    "Factory",
)
# fmt: on
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar)
VAGUE_MODULES = {"util", "utils", "helper", "helpers", "common", "misc"}
MOCK_NAMES = {"Mock", "MagicMock", "AsyncMock", "patch", "mocker", "create_autospec", "monkeypatch"}
MARKS = ("TODO", "FIXME", "XXX")


@dataclass
class FunctionFacts:
    """The figures of one function."""

    where: str
    lines: int
    code_lines: int
    nesting: int
    parameters: int
    slots: int  # where an annotation may stand: every parameter, and the return
    annotated: int
    public: bool
    docstring_lines: int  # 0 without one
    is_test: bool


@dataclass
class ModuleFacts:
    """The figures of one file and of its functions."""

    name: str
    lines: int
    code_lines: int
    comment_lines: int
    documented: bool
    io_free: bool
    functions: list[FunctionFacts]
    public_classes: int
    documented_classes: int
    names: list[str]  # of the module itself and of its public classes
    public_names: int
    bound_names: int
    imports_now: set[str]
    imports_deferred: set[str]
    counts: dict[str, int] = field(default_factory=dict)


def read_module(path: Path, name: str, known: set[str]) -> ModuleFacts:
    """Return the figures of a file. `known` are the dotted names of all modules of its tree.

    Raises SyntaxError, tokenize.TokenError or RecursionError for a file that can't be read.
    """
    source = path.read_text(encoding="utf-8", errors="replace")
    tree = ast.parse(source)
    code, comments = classify_lines(source, tree)
    in_tests = path.name.startswith("test_") or path.stem.endswith("_test")
    classes = [node for node, is_public in walk_classes(tree) if is_public]
    is_package = path.name == "__init__.py"
    now, deferred, outside = import_graph.imports_of(tree, name, is_package=is_package, known=known)
    defined = defined_names(tree)
    return ModuleFacts(
        name=name,
        lines=source.count("\n") + (not source.endswith("\n") and bool(source)),
        code_lines=len(code),
        comment_lines=len(comments),
        documented=ast.get_docstring(tree) is not None,
        io_free=not (outside & EFFECTFUL) and not (called_names(tree) & EFFECTFUL_CALLS),
        functions=[
            function_facts(node, code, f"{path}:{node.lineno}", public=public, in_tests=in_tests)
            for node, public in walk_functions(tree)
            if not is_overload(node)
        ],
        public_classes=len(classes),
        documented_classes=sum(ast.get_docstring(node) is not None for node in classes),
        names=[name.rpartition(".")[2], *(node.name for node in classes)],
        public_names=sum(map(is_public_name, defined)) if is_public_path(name) else 0,
        bound_names=sum(map(is_public_name, defined | imported_names(tree))),
        imports_now=now,
        imports_deferred=deferred,
        counts=count_habits(tree, comments.values()),
    )


def classify_lines(source: str, tree: ast.Module) -> tuple[set[int], dict[int, str]]:
    """Return the numbers of the lines that hold code, and the comment of each line with one."""
    code: set[int] = set()
    comments: dict[int, str] = {}
    silent = {
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.ENCODING,
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string
        elif token.type not in silent:
            code.update(range(token.start[0], token.end[0] + 1))
    for docstring in walk_docstrings(tree):
        code.difference_update(lines_of(docstring))
    return code, comments


def lines_of(node: ast.stmt | ast.expr) -> range:
    """Return the numbers of the lines that a node covers."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def walk_docstrings(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statement of every docstring."""
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (ast.get_docstring(node, clean=False) is not None):
            yield node.body[0]


def walk_functions(node: ast.AST, *, public: bool = True) -> Iterator[tuple[Function, bool]]:
    """Yield every function under the node, and whether it is public."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, public and is_public_name(child.name)
            yield from walk_functions(child, public=False)
        elif isinstance(child, ast.ClassDef):
            yield from walk_functions(child, public=public and is_public_name(child.name))
        else:
            yield from walk_functions(child, public=public)


def walk_classes(node: ast.AST, *, public: bool = True) -> Iterator[tuple[ast.ClassDef, bool]]:
    """Yield every class under the node, and whether it is public."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            inner = public and is_public_name(child.name)
            yield child, inner
            yield from walk_classes(child, public=inner)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from walk_classes(child, public=False)
        else:
            yield from walk_classes(child, public=public)


def is_overload(node: Function) -> bool:
    """Tell whether the function is an @overload stub."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def parameters_of(node: Function) -> list[ast.arg]:
    """Return the parameters without `self` and `cls`."""
    spec = node.args
    listed = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
    listed += [extra for extra in (spec.vararg, spec.kwarg) if extra is not None]
    return listed[1:] if listed and listed[0].arg in {"self", "cls", "mcs"} else listed


def function_facts(
    node: Function, code: set[int], where: str, *, public: bool, in_tests: bool
) -> FunctionFacts:
    """Return the figures of one function. `code` are the lines of its file that hold code."""
    parameters = parameters_of(node)
    span = lines_of(node)
    return FunctionFacts(
        where=f"{where} {node.name}",
        lines=len(span),
        code_lines=sum(line in code for line in span),
        nesting=nesting_of(node.body),
        parameters=len(parameters),
        slots=len(parameters) + 1,
        annotated=sum(parameter.annotation is not None for parameter in parameters)
        + (node.returns is not None),
        public=public,
        docstring_lines=len((ast.get_docstring(node) or "").splitlines()),
        is_test=in_tests and node.name.startswith("test"),
    )


def nesting_of(body: list[ast.stmt]) -> int:
    """Return how many blocks deep the deepest statement stands. An `elif` adds nothing."""
    deepest = 0
    for statement in body:
        if not isinstance(statement, (*BLOCKS, ast.Match)):
            continue
        inside = 1 + max(nesting_of(block) for block in blocks_of(statement))
        if (
            isinstance(statement, ast.If)
            and len(statement.orelse) == 1
            and isinstance(statement.orelse[0], ast.If)
        ):
            inside = max(1 + nesting_of(statement.body), nesting_of(statement.orelse))
        deepest = max(deepest, inside)
    return deepest


def blocks_of(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield every list of statements inside a statement."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for arm in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield arm.body


def called_names(tree: ast.Module) -> set[str]:
    """Return the last word of everything that is called."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(function, "attr", getattr(function, "id", "")) for function in calls}


def defined_names(tree: ast.Module) -> set[str]:
    """Return the names that the module defines itself."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def imported_names(tree: ast.Module) -> set[str]:
    """Return the names that the module imports from others."""
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
    ]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def is_public_name(name: str) -> bool:
    """Tell whether a name has no leading underscore."""
    return not name.startswith("_")


def is_public_path(module: str) -> bool:
    """Tell whether no part of a dotted name is private."""
    return not any(part.startswith("_") and not part.startswith("__") for part in module.split("."))


def is_vague(name: str) -> bool:
    """Tell whether a module or a class has a name that fits anything."""
    return name.strip("_") in VAGUE_MODULES or name.endswith(VAGUE_ENDINGS)


def count_habits(tree: ast.Module, comments: Iterable[str]) -> dict[str, int]:
    """Count the habits of a file: broad excepts, asserts, mocks, sleeps and the like."""
    counts = dict.fromkeys(
        ("broad_except", "asserts", "mocks", "sleeps", "given", "parametrize"), 0
    )
    text = "\n".join(comments)
    counts["unfinished"] = sum(text.count(mark) for mark in MARKS)
    counts["type_ignore"] = text.count("type: ignore")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            counts["broad_except"] += catches_everything(node)
        elif isinstance(node, ast.Assert):
            counts["asserts"] += 1
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg):
            word = next(filter(None, (getattr(node, key, "") for key in ("id", "attr", "arg"))), "")
            counts["mocks"] += word in MOCK_NAMES
            counts["given"] += word in {"given", "RuleBasedStateMachine"}
            counts["parametrize"] += word == "parametrize"
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            counts["sleeps"] += called == "sleep"
            counts["asserts"] += called.startswith("assert") and called != "assert_never"
    return counts


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Tell whether it is `except:` or `except Exception:` with a body that does not raise again."""
    caught = {"Exception"}
    if handler.type is not None:
        caught = {getattr(node, "id", "") for node in ast.walk(handler.type)}
    raises_again = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    return bool(caught & {"Exception", "BaseException"}) and not raises_again

from __future__ import annotations

import ast

from tools import import_graph

KNOWN = {"pkg", "pkg.a", "pkg.b", "pkg.sub", "pkg.sub.c"}


def imports(text: str, module: str = "pkg.a") -> tuple[set[str], set[str], set[str]]:
    return import_graph.imports_of(ast.parse(text), module, is_package=False, known=KNOWN)


def test_own_modules_and_others_are_told_apart() -> None:
    now, deferred, outside = imports("import os.path\nfrom pkg import b\nfrom pkg.sub.c import f")
    assert (now, deferred, outside) == ({"pkg.b", "pkg.sub.c"}, set(), {"os"})


def test_an_import_in_a_function_or_for_types_is_deferred() -> None:
    text = "def f():\n    import pkg.b\nif TYPE_CHECKING:\n    import pkg.sub.c"
    assert imports(text)[1] == {"pkg.b", "pkg.sub.c"}


def test_relative_imports_are_resolved() -> None:
    assert imports("from .. import b", "pkg.sub.c")[0] == {"pkg.b"}


def test_cycles_are_sets_that_reach_each_other() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    assert import_graph.cycles_in(graph) == [["a", "b", "c"]]

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import house_rules

BREAKS = [
    ("filler names", "def f(each): ..."),
    ("filler names", "for there in ():\n    pass"),
    ("filler names", "x = [found for found in ()]"),
    ("filler names", "with open('f') as made:\n    pass"),
    ("filler names", "match 1:\n    case told:\n        pass"),
    ("raises unsaid", 'def f():\n    """Return one."""\n    raise ValueError'),
    (
        "raises unsaid",
        "class C:\n    async def f(self):\n        if self:\n            raise ValueError",
    ),
    ("shapes unsaid", 'def f(x: np.ndarray):\n    """Add."""'),
    ("shapes unsaid", 'def f() -> dict[str, "npt.NDArray[np.float32]"]:\n    """Add."""'),
    ("docstrings unfinished", 'def f():\n    """return one."""'),
    ("docstrings unfinished", 'class C:\n    """A thing"""'),
    ("docstrings unfinished", '"""A module"""'),
    ("tasks loose", "asyncio.create_task(f())"),
    ("tasks loose", "asyncio.get_running_loop().create_task(f())"),
    ("tasks loose", "asyncio.ensure_future(f())"),
]
KEEPS = [
    ("filler names", "def f(model): ...\nx.each = each\ng(each=1)"),
    ("raises unsaid", 'def f():\n    """Raise ValueError."""\n    raise ValueError'),
    ("raises unsaid", "def f():\n    try:\n        g()\n    except OSError:\n        raise"),
    ("raises unsaid", "def f():\n    raise AssertionError('our bug')"),
    ("raises unsaid", "def _f():\n    raise ValueError"),
    ("raises unsaid", "def f():\n    def g():\n        raise ValueError\n    return g"),
    ("shapes unsaid", 'def f(x: np.ndarray):\n    """Add to x of shape (n, 3)."""'),
    ("shapes unsaid", "def _f(x: np.ndarray): ..."),
    ("docstrings unfinished", 'def f():\n    """Return one:\n\n        f()\n    """'),
    ("docstrings unfinished", '"""vLLM\'s arguments."""'),
    ("tasks loose", "async with asyncio.TaskGroup() as group:\n    group.create_task(g())"),
    ("tasks loose", "tasks.spawn(f(), 'watch')"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text"), BREAKS)
def test_a_rule_finds_what_breaks_it(rule: str, text: str) -> None:
    assert list(house_rules.RULES[rule](ast.parse(text))) != []


@pytest.mark.parametrize(("rule", "text"), KEEPS)
def test_a_rule_leaves_the_rest_alone(rule: str, text: str) -> None:
    assert list(house_rules.RULES[rule](ast.parse(text))) == []


def test_every_rule_is_proven_both_ways() -> None:
    assert {rule for rule, _ in BREAKS} == {rule for rule, _ in KEEPS} == set(house_rules.RULES)


def test_breaches_are_listed_by_file(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("\neach = 1\n")
    assert house_rules.breaches(house_rules.filler_names, tmp_path) == {"bad.py": ["2: each"]}

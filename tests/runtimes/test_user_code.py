from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.runtimes import user_code


def module_of(folder: Path, source: str) -> tuple[user_code.UserCode, Any]:
    (folder / "model.py").write_text(source)
    code = user_code.UserCode(folder / "model.py")
    return code, code.module()


def test_files_beside_the_model_are_imported_with_a_dot_and_without(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import other\nVALUE = other.VALUE + 1\n")
    (tmp_path / "other.py").write_text("VALUE = 1\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("from . import inner\n")
    (tmp_path / "parts" / "inner.py").write_text("from helper import VALUE\n")
    source = (
        "import helper\nfrom helper import VALUE\nfrom . import helper as dotted\n"
        "import parts.inner\nfrom parts.inner import VALUE as INNER\n"
        "def later():\n    import other\n    from parts import inner\n    return other, inner\n"
    )
    code, module = module_of(tmp_path, source)
    assert (module.VALUE, module.INNER, module.parts.inner.VALUE) == (2, 2, 2)
    assert module.helper is module.dotted
    other, inner = module.later()
    assert (other.VALUE, inner.VALUE) == (1, 2)
    assert not {"helper", "other", "parts"} & set(sys.modules)
    assert not list(tmp_path.rglob("*.pyc"))
    code.forget()
    assert not [name for name in sys.modules if name.partition(".")[0] == module.__name__]


def test_two_models_have_files_of_the_same_name(tmp_path: Path) -> None:
    modules = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "helper.py").write_text(f"VALUE = {number}\n")
        modules.append(
            module_of(folder, "def value():\n    import helper\n    return helper.VALUE")
        )
    assert [module.value() for _, module in modules] == [1, 2]


def test_libraries_and_python_s_own_modules_are_those_that_are_installed(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError\n")
    _, module = module_of(tmp_path, "import json, numpy\nimport os.path\nfrom json import dumps\n")
    assert module.json is sys.modules["json"]
    assert module.numpy is sys.modules["numpy"]


def test_a_coroutine_s_answer_is_waited_for(tmp_path: Path) -> None:
    source = (
        "import asyncio\nasync def double(x):\n    await asyncio.sleep(0)\n    return 2 * x\n"
        "async def fail():\n    await asyncio.sleep(0)\n    1 / 0\n"
    )
    code, module = module_of(tmp_path, source)
    assert code.run(errors.ModelRaised, module.double, 4) == 8
    with pytest.raises(errors.ModelRaised, match=r"^model\.py:7: ZeroDivisionError"):
        code.run(errors.ModelRaised, module.fail)
    code.forget()


def test_its_own_lack_of_service_is_no_worker_s(tmp_path: Path) -> None:
    source = (
        "from meshserve import errors\n"
        "def fail():\n    raise errors.Unavailable('mine', retry_after_s=2)\n"
    )
    code, module = module_of(tmp_path, source)
    with pytest.raises(errors.ModelUnavailable, match=r"^mine$") as raised:
        code.run(errors.ModelRaised, module.fail)
    assert raised.value.retry_after_s == 2
    code.forget()


def test_with_a_loop_of_its_own_all_code_runs_there(tmp_path: Path) -> None:
    source = (
        "import asyncio\nclass A:\n    def __init__(self):\n"
        "        self.loop = asyncio.get_running_loop()\n"
        "    async def same(self):\n        return self.loop is asyncio.get_running_loop()\n"
    )
    (tmp_path / "model.py").write_text(source)
    code = user_code.UserCode(tmp_path / "model.py", has_own_loop=True)
    user = code.run(errors.LoadFailed, code.module().A)
    assert code.run(errors.ModelRaised, user.same) is True
    code.forget()

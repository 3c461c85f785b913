"""A user's own Python modules, imported under names of their own, and calls of what they define.

Each model is a package of its own, so that two models with a file of the same name share nothing.
The files beside the model are imported by `from . import features`, or by `import features` as the
scripts do from which models come.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from meshserve import errors
from meshserve.logs import run_context
from meshserve.runtimes import files, user_loop

T = TypeVar("T")

PREFIX = "meshserve_model_"
INIT = "__init__.py"

_numbers = itertools.count()


class _Loader(importlib.machinery.SourceFileLoader):
    """A loader that writes no compiled files into the artifact, which must not change."""

    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:
        pass

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module. Its `import x` finds the file x beside the model first."""
        package, _, _ = module.__name__.partition(".")
        folder = Path(sys.modules[package].__path__[0])
        # Python takes the function of an import statement from the builtins of its module.
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(package, folder)}
        super().exec_module(module)


def _importer(package: str, folder: Path) -> Callable[..., Any]:
    def import_(
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        top, _, _ = name.partition(".")
        if level == 0 and _is_beside(folder, top):
            # One dot means the package's own, whichever of its modules the statement is in.
            return builtins.__import__(name, {"__package__": package}, locals_, fromlist or (), 1)
        return builtins.__import__(name, globals_, locals_, fromlist or (), level)

    return import_


def _is_beside(folder: Path, name: str) -> bool:
    """Return whether the folder has a module of this name; those of Python itself count more."""
    if name in sys.stdlib_module_names:
        return False
    return (folder / f"{name}.py").is_file() or (folder / name / INIT).is_file()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of models' packages, so that all of them are loaded by `_Loader`."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 the interface's
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module of a model is, None for all others and for compiled ones."""
        if not path or not fullname.startswith(PREFIX):
            return None
        folder, name = Path(path[0]), fullname.rpartition(".")[2]
        if (folder / name / INIT).is_file():
            return _spec(fullname, folder / name / INIT, folder / name)
        file = folder / f"{name}.py"
        return _spec(fullname, file) if file.is_file() else None


def _spec(
    name: str, file: Path, folder: Path | None = None
) -> importlib.machinery.ModuleSpec | None:
    """Return the spec of a module; with a folder it is a package."""
    return importlib.util.spec_from_file_location(
        name,
        file,
        loader=_Loader(name, str(file)),
        submodule_search_locations=None if folder is None else [str(folder)],
    )


# First, because Python's own finder would load these files too, and write compiled ones.
sys.meta_path.insert(0, _Finder())


class UserCode:
    """A user's module under a unique name, whose errors are reported with file and line.

    `package` is the folder that its modules lie in or below, the file's own by default; `installed`
    is the name of a module that is imported as it is. With `has_own_loop` everything of it runs on
    an event loop of its own, else only coroutines do.
    """

    def __init__(
        self,
        file: Path,
        *,
        package: Path | None = None,
        installed: str = "",
        has_own_loop: bool = False,
    ) -> None:
        self.file = file
        self._folder = str(package or file.parent)
        self._is_part = package is not None
        self._installed = installed
        self._name = f"{PREFIX}{next(_numbers)}"
        self._has_own_loop = has_own_loop
        self._loop = user_loop.UserLoop(self._name)

    @property
    def package(self) -> str:
        """The name that the names of its modules begin with."""
        return self._name

    def module(self) -> ModuleType:
        """Execute and return the module. Raises LoadFailed."""
        run_context.claim(self._name)
        if self._installed:
            return self._imported(self._installed)
        if self._is_part:
            package = ModuleType(self._name)
            package.__path__ = [self._folder]
            sys.modules[self._name] = package
            parts = self.file.relative_to(self._folder).with_suffix("").parts
            return self._imported(".".join((self._name, *parts)).removesuffix(".__init__"))
        spec = _spec(self._name, self.file, self.file.parent)
        if spec is None or spec.loader is None:
            raise errors.LoadFailed(f"{self.file.name} can't be imported")
        module = importlib.util.module_from_spec(spec)
        # Before it is executed, because the imports in it look for their package there.
        sys.modules[self._name] = module
        self.run(errors.LoadFailed, spec.loader.exec_module, module)
        return module

    def _imported(self, name: str) -> ModuleType:
        module: ModuleType = self.run(errors.LoadFailed, importlib.import_module, name)
        return module

    def forget(self) -> None:
        """Drop the module, those that it imported from its folder, and its event loop."""
        # Before the modules go, because its coroutines may still import some.
        self._loop.close()
        run_context.disown(self._name)
        # Of a copy, which is made at once: other threads import modules meanwhile.
        for name in list(sys.modules):
            if name == self._name or name.startswith(f"{self._name}."):
                sys.modules.pop(name, None)

    def run(self, failure: type[errors.MeshError], call: Callable[..., T], *args: object) -> Any:
        """Call the user's code, and wait for its answer if it is a coroutine.

        Raises `failure` for what it raises, but lets MeshErrors pass; an Unavailable, which means
        a worker elsewhere, becomes ModelUnavailable.
        """
        try:
            if self._has_own_loop:
                return self._loop.call(call, *args)
            answer = call(*args)
            return self._loop.wait(answer) if user_loop.is_awaitable(answer) else answer
        except errors.Unavailable as error:
            raise errors.ModelUnavailable(
                error.message, retry_after_s=error.retry_after_s
            ) from error
        except errors.MeshError:
            raise
        except BaseException as error:  # a user's code must not end the worker or its event loop
            raise failure(
                f"{self._position(error)}{type(error).__name__}: "
                f"{files.summarize(error)}{_advice(error)}"
            ) from error

    def _position(self, error: BaseException) -> str:
        if isinstance(error, SyntaxError) and error.filename:
            return f"{Path(error.filename).name}:{error.lineno}: "
        # The last line in the user's own files: lines of libraries below it tell less.
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(self._folder)
        ]
        return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            "; a library must be installed where the mesh runs, "
            "a file of the user's must lie beside the model"
        )
    return ""

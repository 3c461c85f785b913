"""The options of a model, read strictly."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from meshserve import errors
from meshserve.core.values import model


class Options:
    """Reads options by name and type; `check_known` refuses what was not read."""

    def __init__(self, spec: model.ModelSpec) -> None:
        self._values = spec.options
        # `files.chosen_path` reads this option for all runtimes.
        self._known = {"file"}

    def count(self, name: str, default: int) -> int:
        """Return a whole number. Raises LoadFailed if the option is negative or no number."""
        value = self._get(name, default)
        # True is an int in Python.
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise errors.LoadFailed(f"option {name}: {value!r} is not a count")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number. Raises LoadFailed if the option is none."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise errors.LoadFailed(f"option {name}: {value!r} is not a number")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return True or False. Raises LoadFailed if the option is neither."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise errors.LoadFailed(f"option {name}: {value!r} is neither true nor false")
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """Return one of the given words. Raises LoadFailed if the option is another."""
        value = self._get(name, default)
        # YAML reads a bare `off` as False.
        if isinstance(value, bool):
            value = "on" if value else "off"
        if value not in choices:
            raise errors.LoadFailed(f"option {name}: {value!r} is not one of {', '.join(choices)}")
        return str(value)

    def text(self, name: str, default: str) -> str:
        """Return a text. Raises LoadFailed if the option is not one."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise errors.LoadFailed(f"option {name}: {value!r} is not a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty by default. Raises LoadFailed if the option is no list."""
        value = self._get(name, ())
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise errors.LoadFailed(f"option {name}: {value!r} is not a list of texts")
        return tuple(value)

    def check_known(self) -> None:
        """Raise LoadFailed for an option that was not read, with the nearest that was."""
        for name in self._values:
            if name not in self._known:
                raise errors.LoadFailed(
                    f"option {name!r} is not known here{suggest(name, self._known)}"
                )

    def _get(self, name: str, default: object) -> object:
        self._known.add(name)
        value = self._values.get(name)
        return default if value is None else value


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?`, or `; there is: …` if no known word is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is: {', '.join(names)}"

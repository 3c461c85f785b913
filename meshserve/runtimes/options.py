"""The options of a model, read strictly."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from meshserve import errors
from meshserve.core.values import model


class Options:
    """Reads options by name and type; `check_known` refuses what nobody read. Every fault is LoadFailed."""

    def __init__(self, spec: model.ModelSpec) -> None:
        self._values = spec.options
        self._known = {"file"}

    def _get(self, name: str) -> object:
        self._known.add(name)
        return self._values.get(name)

    def count(self, name: str, default: int) -> int:
        """A whole number that is not negative."""
        value = self._get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise errors.LoadFailed(f"option {name}: {value!r} is not a count")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise errors.LoadFailed(f"option {name}: {value!r} is neither true nor false")
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of the given words. YAML's bare `off` and `on` are taken as the words they look like."""
        value = self._get(name)
        if isinstance(value, bool):
            value = "on" if value else "off"
        if value is None:
            return default
        if value not in choices:
            raise errors.LoadFailed(f"option {name}: {value!r} is not one of {', '.join(choices)}")
        return str(value)

    def text(self, name: str, default: str) -> str:
        """A word."""
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise errors.LoadFailed(f"option {name}: {value!r} is not a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of words, empty if there is none."""
        value = self._get(name)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise errors.LoadFailed(f"option {name}: {value!r} is not a list of texts")
        return tuple(value)

    def check_known(self) -> None:
        """Refuse an option that was not read, with the nearest one that is known."""
        for name in self._values:
            if name not in self._known:
                raise errors.LoadFailed(
                    f"option {name!r} is not known here{nearest(name, self._known)}"
                )


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or what there is where nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is: {', '.join(names)}"

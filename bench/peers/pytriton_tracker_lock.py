"""Give PyTriton's embedded Python the attribute that multiprocessing asks its lock for.

PyTriton's backend embeds another patch release of Python, whose lock lacks it.
"""

from __future__ import annotations

from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any


class Lock:
    """The tracker's own lock, with a recursion count."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._depth = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        self._lock.release()

    def _recursion_count(self) -> int:
        return self._depth


tracker: Any = resource_tracker._resource_tracker  # noqa: SLF001 - its lock lacks the attribute
tracker._lock = Lock(tracker._lock)  # noqa: SLF001 - the same

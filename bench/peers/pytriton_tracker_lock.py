"""PyTriton's backend embeds another patch release of Python, whose lock lacks an attribute that multiprocessing asks for: give it one."""

from __future__ import annotations

from multiprocessing import resource_tracker
from types import TracebackType


class Lock:
    """The tracker's own lock, with a recursion count."""

    def __init__(self, lock) -> None:
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


resource_tracker._resource_tracker._lock = Lock(resource_tracker._resource_tracker._lock)  # noqa: SLF001 - the very attribute that it asks

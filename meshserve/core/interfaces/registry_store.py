"""What the controller asks of its registry, which one controller at a time may write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from meshserve import errors
from meshserve.core.values import registry_contents, reports


class LeaseLost(errors.Unavailable):
    """Another controller has taken the registry: this one must not write any more, and ends."""


class OutcomeUnknown(errors.Unavailable):
    """The connection broke while a transaction was being committed: it may be there or not."""


class RegistryStore(Protocol):
    """The durable registry. Its methods block; one thread at a time may call them.

    What writes it raises LeaseLost, and changes nothing, unless `take_lease` has returned True and
    no other store has taken the lease since. All but `interrupt` raise Unavailable if the database
    does not answer.
    """

    def load(self) -> registry_contents.RegistryContents:
        """Return all that the registry holds."""
        ...

    def save(self, changes: Sequence[registry_contents.RegistryChange]) -> None:
        """Make all of the changes durable, or none.

        Raises OutcomeUnknown if only `settle` can tell which; it must be called before the next
        save.
        """
        ...

    def settle(self) -> bool:
        """Return whether the changes of the last save are there, after an OutcomeUnknown."""
        ...

    def remember(self, learned: Sequence[reports.LearnedMeasurement]) -> None:
        """Keep the measurements of models that the registry holds; others are ignored."""
        ...

    def read_lease(self) -> registry_contents.WriteLease:
        """Return who writes the registry."""
        ...

    def take_lease(self, holder: str, about: str, seen: registry_contents.WriteLease) -> bool:
        """Write from now on as `holder`, unless the lease has changed since it was `seen`.

        Returns whether it had not changed.
        """
        ...

    def renew_lease(self) -> None:
        """Give a sign of life."""
        ...

    def release_lease(self) -> None:
        """Let the next mesh begin at once. Does nothing if the lease is not held."""
        ...

    def interrupt(self) -> None:
        """Have a call that waits for the database fail; any thread may call this."""
        ...

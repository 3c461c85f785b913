"""How a process ended that ran one model."""

from __future__ import annotations

from dataclasses import dataclass

STOPPED = "the model's process was stopped"
"""What the sentence about a death begins with that meshserve itself has caused."""

OVER_MEMORY = "it took"
"""What the reason begins with for which meshserve stops a process that takes others' memory."""


@dataclass(frozen=True, slots=True)
class ProcessDeath:
    """The end of a model's process.

    `signal_name` is that of the signal that killed it, such as `SIGSEGV`, empty if it ended by
    itself; then `exit_code` is what it ended with. `reason` is why meshserve killed it, empty if it
    did not.
    """

    signal_name: str = ""
    exit_code: int = 0
    reason: str = ""

    @property
    def cause(self) -> str:
        """Return `SIGSEGV`, or `exit code 1`: how the kernel says that it ended."""
        return self.signal_name or f"exit code {self.exit_code}"

    def __str__(self) -> str:
        """Return the sentence for a caller."""
        if self.reason:
            return f"{STOPPED}: {self.reason}"
        if self.signal_name:
            return f"the model's process was killed by {self.cause}"
        return f"the model's process ended itself with {self.cause}"

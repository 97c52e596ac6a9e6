"""How often and when a command is sent again."""

from __future__ import annotations

from dataclasses import dataclass

from strep.control.errors import CallControlError, RateLimitError, ServerError, TransportError
from strep.specs import ConfigError


@dataclass(frozen=True)
class Retries:
    """Limits of sending again, which a `command_id` makes safe.

    Sent again is what the network lost, what the carrier had no room for (429), and what it failed
    at (5xx).
    """

    attempts: int = 4
    attempt_timeout_s: float = 5.0
    total_timeout_s: float = 20.0
    """From the first attempt to the last answer, waits included."""
    first_backoff_s: float = 0.25
    longest_backoff_s: float = 8.0

    def __post_init__(self) -> None:
        """Raise ConfigError where a limit would forbid even one attempt."""
        if self.attempts < 1:
            raise ConfigError(f"attempts: {self.attempts} is not a whole number from 1")
        for name in ("attempt_timeout_s", "total_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a number above 0")

    def wait_s(self, failures: int, error: CallControlError, chance: float) -> float | None:
        """Return how long to wait before the next attempt; None where there is to be none.

        `failures` counts the attempts so far. The wait doubles with each and is drawn from its
        upper half by `chance` (0 to 1), so that many clients do not come back at once; what the
        carrier asks for is added to it.
        """
        again = isinstance(error, TransportError | RateLimitError | ServerError)
        if not again or failures >= self.attempts:
            return None
        backoff_s: float = min(self.first_backoff_s * 2.0 ** (failures - 1), self.longest_backoff_s)
        return (error.retry_after_s or 0.0) + backoff_s * (1 + chance) / 2

"""How long a failed job waits before its next attempt.

Jitter only ever adds: a wait of 60 s is a floor. Of 10,000 jobs that fail in one second, no later second sees more than
three times the mean (AWS Architecture Blog, "Exponential Backoff and Jitter", 2015, gives the reasons for spreading).
"""

from __future__ import annotations

from dataclasses import dataclass

from taskqueue.errors import InvalidOption

LONGEST_DELAY = 10 * 365 * 86_400.0
"""Ten years, in seconds: the longest that anything may be delayed."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow from ``base`` by ``factor`` up to ``cap`` seconds, each longer by up to ``jitter`` of itself."""

    base: float = 10.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        """Refuse what would wait a negative time or for ever."""
        if not 0 <= self.base <= self.cap <= LONGEST_DELAY:
            raise InvalidOption(
                f"backoff needs 0 <= base <= cap <= {LONGEST_DELAY:.0f} seconds, got base={self.base} cap={self.cap}"
            )
        if not 1 <= self.factor <= 100:
            raise InvalidOption(f"backoff factor must be 1 to 100, got {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise InvalidOption(f"backoff jitter must be 0 to 1, got {self.jitter}")

    def delay(self, attempt: int, jitter: float) -> float:
        """Return the seconds to wait after ``attempt`` (counted from 1) has failed; ``jitter`` is random, 0 up to 1."""
        growth = self.factor ** min(attempt - 1, 64)
        return min(self.base * growth, self.cap) * (1 + self.jitter * jitter)

    def to_text(self) -> str:
        """Return the stored form, which `parse_backoff` reads back."""
        return f"{self.base!r} {self.factor!r} {self.cap!r} {self.jitter!r}"


DEFAULT_BACKOFF = Backoff()


def fixed(interval: float) -> Backoff:
    """Return a backoff that always waits ``interval`` seconds (and jitter of a tenth of it)."""
    return Backoff(base=interval, factor=1.0, cap=interval, jitter=0.1)


def parse_backoff(text: str | None) -> Backoff:
    """Return the backoff that `Backoff.to_text` wrote; None is the default."""
    if text is None:
        return DEFAULT_BACKOFF
    base, factor, cap, jitter = (float(part) for part in text.split())
    return Backoff(base, factor, cap, jitter)

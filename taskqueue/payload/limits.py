"""How large, deep and wide a payload may be."""

from __future__ import annotations

from dataclasses import dataclass

from taskqueue.errors import InvalidSetting

LARGEST_DEPTH = 256
LARGEST_SIZE = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that are checked before anything is written, and again before anything is built from stored bytes.

    ``max_bytes`` counts the encoded form before compression, its marker byte included. ``max_depth`` counts
    containers inside containers: ``1`` is 0 deep, ``[1]`` is 1 deep. ``max_items`` counts the members of all
    containers together. ``max_digits`` bounds integers: Python itself refuses to read longer ones by default.

    Raises `InvalidSetting` for a bound below 1, a depth above 256 or a size that four bytes cannot hold.
    """

    max_bytes: int = 1024 * 1024
    max_depth: int = 64
    max_items: int = 100_000
    max_digits: int = 4300

    def __post_init__(self) -> None:
        """Refuse bounds that could not be kept."""
        _check("max_bytes", self.max_bytes, LARGEST_SIZE)
        _check("max_depth", self.max_depth, LARGEST_DEPTH)
        _check("max_items", self.max_items, LARGEST_SIZE)
        _check("max_digits", self.max_digits, 4300)


def _check(name: str, given: int, largest: int) -> None:
    if not 1 <= given <= largest:
        raise InvalidSetting(f"{name} must be between 1 and {largest:,}, got {given:,}")


DEFAULT_LIMITS = Limits()

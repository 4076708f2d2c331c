"""Long lists of ids in pieces that a statement can carry."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from taskqueue.drivers.values import JobFilter

T = TypeVar("T")

SIZE = 1000
"""How many ids one statement carries."""


def chunks(items: Sequence[T], size: int = SIZE) -> Iterator[Sequence[T]]:
    """Yield ``items`` in pieces."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def without_repeats(ids: Collection[bytes]) -> list[bytes]:
    """Return each id once, in order."""
    return list(dict.fromkeys(ids))


def narrowed(which: JobFilter) -> Iterator[JobFilter]:
    """Yield filters that together match what ``which`` matches, each with few ids."""
    if len(which.ids) <= SIZE:
        yield which
        return
    for part in chunks(without_repeats(which.ids)):
        yield replace(which, ids=part)

"""How long a run is going to take, said before it begins: from what each part took on 2 cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.databases.kind import Kind
from benchmarks.growth import worlds
from benchmarks.measure import Sizes

_NODE = 1.8
"""Seconds to make a database, and to start and stop a node."""
_FILLED, _PUSHED, _DRAINED = 90_000, 30_000, 20_000
"""Rows a second: copied by the database, pushed in bulk, drained."""
_PUSH_CAP = 1.8
"""Seconds of one repetition of a push at most, with its database."""


def plan(kinds: Sequence[Kind], parts: Sequence[str], sizes: Sizes) -> Iterator[tuple[Kind, dict[str, float]]]:
    """Yield the seconds that each part takes on each database, roughly."""
    for kind in kinds:
        seconds = dict(_seconds(kind, sizes))
        yield kind, {part: seconds[part] for part in parts}


def _seconds(kind: Kind, sizes: Sizes) -> Iterator[tuple[str, float]]:
    bare = len(kind.equal_durabilities())
    pushed = sizes.rounds * 2 * bare * _PUSH_CAP
    yield "push", pushed
    yield "bulk", pushed
    one = _NODE + sizes.drained / _PUSHED + sizes.drained / _DRAINED
    ours, loops = len(kind.durabilities) * len(sizes.drain_workers), bare * (len(kind.bare_workers) + 1)
    yield "drain", sizes.rounds * (ours * one + loops * (one - 1))
    yield "latency", 2 * (_NODE + sizes.series * sizes.stamps * sizes.stamp_gap) + 3 + 1.5 * sizes.idle
    yield "statements", 4.0
    yield "memory", len(sizes.memory_workers) * (_NODE + 1) + 1
    found = worlds(kind, sizes)
    each = _NODE + 1.5 * sizes.grown / _PUSHED + sizes.grown / _DRAINED
    yield "growth", sum(world.rows for world in found) / _FILLED + (1 + sizes.growth_rounds * len(found)) * each


def describe(found: Sequence[tuple[Kind, dict[str, float]]]) -> str:
    """Return the plan as a sentence for each database."""
    lines = [
        f"{kind.title}: {sum(parts.values()):.0f} s ({', '.join(f'{name} {took:.0f}' for name, took in parts.items())})"
        for kind, parts in found
    ]
    total = sum(sum(parts.values()) for _, parts in found)
    return "\n".join([f"This takes about {total / 60:.1f} minutes on two idle cores.", *lines])

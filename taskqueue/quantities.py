"""Sizes and durations as people write them: ``50MB``, ``64MiB``, ``30s``, ``5m``, ``30d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

_BARE = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_SIZE = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
_DURATION = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*([a-z]*)")

# Powers of 1024 for MB as for MiB: the documents call 52428800 bytes "50MB".
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZE_UNITS |= dict.fromkeys((_letter, f"{_letter}b", f"{_letter}ib"), 1024**_power)

_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_size(value: Any) -> int:
    """Return bytes for a whole number or for text such as ``50MB``, ``64MiB``, ``100m`` or ``52428800``.

    KB, MB and GB are powers of 1024, as KiB, MiB and GiB are. Raises ValueError.
    """
    if type(value) is int:
        return value
    match = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError("not a size")
    factor = _SIZE_UNITS[match[2]]
    return int(match[1]) * factor if "." not in match[1] else int(float(match[1]) * factor)


def with_unit(value: Any, unit: str) -> Any:
    """Return ``value`` with ``unit`` after it where it is a number without a unit, else as it came."""
    if (type(value) is int or type(value) is float) or (isinstance(value, str) and _BARE.fullmatch(value.strip())):
        return f"{value}{unit}"
    return value


def parse_duration(value: Any) -> float:
    """Return seconds for a number, a timedelta or text such as ``30``, ``1.5``, ``30s``, ``5m``, ``2h`` or ``30d``.

    Raises ValueError, for what is not finite as well.
    """
    if type(value) is float or type(value) is int:
        seconds = float(value)
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        match = _DURATION.fullmatch(value.strip().lower()) if isinstance(value, str) else None
        if match is None or match[2] not in _DURATION_UNITS:
            raise ValueError("not a duration")
        seconds = float(match[1]) * _DURATION_UNITS[match[2]]
    if not -1e15 < seconds < 1e15:
        raise ValueError("not a finite duration")
    return seconds


def format_size(size: float) -> str:
    """Return the shortest exact form that `parse_size` reads back, such as ``50MB``."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "KB")):
        if size and size % 1024**power == 0:
            return f"{int(size) // 1024**power}{unit}"
    return str(int(size))

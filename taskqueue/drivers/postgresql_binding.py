"""Lists as PostgreSQL's binary arrays, and rows for COPY: made at once, not value by value."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final

_HEADER: Final = Struct(">iiiii")
_EMPTY: Final = Struct(">iii")
_SIXTEEN, _EIGHT, _FOUR = (size.to_bytes(4, "big") for size in (16, 8, 4))
_NULL: Final = b"\xff\xff\xff\xff"
_BYTEA, _INT8, _INT4, _UUID, _VARCHAR = 17, 20, 23, 2950, 1043


def _array(kind: int, values: Sequence[Any], body: bytes) -> bytes:
    if not values:
        return _EMPTY.pack(0, 0, kind)
    return _HEADER.pack(1, 1, kind, len(values), 1) + body


def uuids(values: Sequence[bytes]) -> bytes:
    """Return ids as ``uuid[]``."""
    return _array(_UUID, values, _SIXTEEN + _SIXTEEN.join(values))


def bigints(values: Sequence[int]) -> bytes:
    """Return numbers as ``bigint[]``."""
    packed = [value.to_bytes(8, "big", signed=True) for value in values]
    return _array(_INT8, values, _EIGHT + _EIGHT.join(packed))


def integers(values: Sequence[int]) -> bytes:
    """Return numbers as ``integer[]``."""
    packed = [value.to_bytes(4, "big", signed=True) for value in values]
    return _array(_INT4, values, _FOUR + _FOUR.join(packed))


def blobs(values: Sequence[bytes | None]) -> bytes:
    """Return blobs, and None as null, as ``bytea[]``."""
    return _array(_BYTEA, values, b"".join(map(_sized, values)))


def names(values: Sequence[str]) -> bytes:
    """Return texts as ``varchar[]``."""
    return _array(_VARCHAR, values, b"".join([_sized(value.encode()) for value in values]))


def _sized(value: bytes | None) -> bytes:
    return _NULL if value is None else len(value).to_bytes(4, "big") + value

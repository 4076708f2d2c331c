"""The closed list of types that JSON does not know, and how each is written as a tag.

A tag is a JSON object with exactly one key that begins with ``$``, such as ``{"$uuid": "0190..."}``. A dict of the
user that looks so is written with one more ``$``, and loses it again when it is read.

====================  ==================================================================================
``$tuple $set         a list of the members; those of a set in the order of their JSON text, so that equal
$frozenset``          sets give equal bytes in every process
``$bytes``            base64
``$decimal``          its text: sign, digits and exponent are kept
``$uuid``             32 hex digits
``$date``             ISO 8601
``$time $datetime``   ISO 8601 with the offset from UTC, or ``[ISO 8601, fold, zone]``
``$timedelta``        ``[days, seconds, microseconds]``
====================  ==================================================================================

Of a datetime are kept: wall time, microseconds, fold, the offset from UTC, and the name of its `zoneinfo.ZoneInfo`
zone. Where the reading machine does not know the zone, or its rules give another offset, the datetime comes back with
the fixed offset, so the instant is never changed. The name of a `datetime.timezone` is not kept, its offset is.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, ClassVar, Never
from uuid import UUID
from zoneinfo import ZoneInfo

from taskqueue.errors import PayloadTooDeep, PayloadTooLarge, PayloadTypeError
from taskqueue.payload.limits import Limits

_ALLOWED = (
    "None, bool, int, float, str, bytes, list, tuple, dict with str keys, set, frozenset, datetime, date, time, "
    "timedelta, UUID or Decimal"
)
_PLAIN_BASES = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time, timedelta)
_LONGEST_STEP = 40
_order = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class Tagger:
    """Turns one value into the same value in JSON's types, or refuses it with its path.

    One object serves one value: it counts items and bytes over the whole walk.
    """

    __slots__ = ("_bytes", "_containers", "_items", "_limits", "_path", "_root")

    def __init__(self, limits: Limits, root: str) -> None:
        self._limits = limits
        self._root = root
        self._path: list[str] = []
        self._containers: list[Any] = []
        self._items = 0
        self._bytes = 0

    def tag(self, value: Any) -> Any:
        """Return ``value`` in JSON's types; raise `PayloadError` naming the place inside it."""
        write = self._writers.get(type(value))
        if write is None:
            self._refuse_type(value)
        return write(self, value)

    def _list(self, value: list[Any] | tuple[Any, ...]) -> list[Any]:
        self._enter(value)
        tagged = []
        for index, item in enumerate(value):
            self._path.append(f"[{index}]")
            tagged.append(self.tag(item))
            self._path.pop()
        self._containers.pop()
        return tagged

    def _tuple(self, value: tuple[Any, ...]) -> dict[str, Any]:
        return {"$tuple": self._list(value)}

    def _members(self, value: set[Any] | frozenset[Any]) -> list[Any]:
        self._enter(value)
        self._path.append("{...}")
        tagged = sorted((self.tag(item) for item in value), key=_order)
        self._path.pop()
        self._containers.pop()
        return tagged

    def _set(self, value: set[Any]) -> dict[str, Any]:
        return {"$set": self._members(value)}

    def _frozenset(self, value: frozenset[Any]) -> dict[str, Any]:
        return {"$frozenset": self._members(value)}

    def _dict(self, value: dict[Any, Any]) -> dict[str, Any]:
        self._enter(value)
        tagged = {}
        for key, item in value.items():
            if type(key) is not str:
                self._refuse_key(key)
            self._count(len(key))
            self._path.append(_step(key))
            tagged[key] = self.tag(item)
            self._path.pop()
        self._containers.pop()
        if len(tagged) == 1:
            [(key, item)] = tagged.items()
            if key.startswith("$"):
                return {f"${key}": item}
        return tagged

    def _atom(self, value: Any) -> Any:
        return value

    def _str(self, value: str) -> str:
        self._count(len(value))
        return value

    def _int(self, value: int) -> int:
        limit = self._limits.max_digits
        # 10 ** n has just over 3.32 n bits: the cheap test first, since the exact one builds a huge number.
        if value.bit_length() > 3.3 * limit and abs(value) >= 10**limit:
            message = f"{self._where()} is an integer of more than {limit:,} digits; pass it as bytes or text"
            raise PayloadTooLarge(message)
        self._count(value.bit_length() // 4)
        return value

    def _float(self, value: float) -> float:
        if value - value != 0:
            self._refuse(f"is {value}, and only finite numbers can be stored; pass None or leave it out")
        return value

    def _bytes_(self, value: bytes) -> dict[str, str]:
        self._count(len(value))
        return {"$bytes": b64encode(value).decode("ascii")}

    def _decimal(self, value: Decimal) -> dict[str, str]:
        if not value.is_finite():
            self._refuse(f"is a Decimal {value}, and only finite numbers can be stored; pass None or leave it out")
        text = str(value)
        self._count(len(text))
        return {"$decimal": text}

    def _uuid(self, value: UUID) -> dict[str, str]:
        return {"$uuid": value.hex}

    def _date(self, value: date) -> dict[str, str]:
        return {"$date": value.isoformat()}

    def _timedelta(self, value: timedelta) -> dict[str, list[int]]:
        return {"$timedelta": [value.days, value.seconds, value.microseconds]}

    def _time(self, value: time) -> dict[str, Any]:
        zone = value.tzinfo
        if zone is None or type(zone) is timezone:
            return {"$time": [value.isoformat(), 1, None] if value.fold else value.isoformat()}
        if type(zone) is not ZoneInfo or not _is_found_by_key(zone):
            self._refuse(f"is a time with a {_name(type(zone))}; use datetime.timezone or zoneinfo.ZoneInfo")
        return {"$time": [value.replace(tzinfo=None).isoformat(), value.fold, zone.key]}

    def _datetime(self, value: datetime) -> dict[str, Any]:
        zone = value.tzinfo
        if zone is None or type(zone) is timezone:
            return {"$datetime": [value.isoformat(), 1, None] if value.fold else value.isoformat()}
        offset = value.utcoffset()
        if type(zone) is ZoneInfo and offset is not None and _is_found_by_key(zone):
            return {"$datetime": [value.isoformat(), value.fold, zone.key]}
        # Another library's zone: its fixed offset will do if the two are equal, which they are not in a repeated hour.
        if offset is None or value.replace(tzinfo=timezone(offset)) != value:
            self._refuse(
                f"is a datetime with a {_name(type(zone))} that would not come back equal; "
                "use datetime.timezone or zoneinfo.ZoneInfo"
            )
        return {"$datetime": [value.isoformat(), value.fold, None] if value.fold else value.isoformat()}

    _writers: ClassVar[dict[type, Callable[[Tagger, Any], Any]]] = {
        NoneType: _atom,
        bool: _atom,
        int: _int,
        float: _float,
        str: _str,
        bytes: _bytes_,
        list: _list,
        tuple: _tuple,
        dict: _dict,
        set: _set,
        frozenset: _frozenset,
        datetime: _datetime,
        date: _date,
        time: _time,
        timedelta: _timedelta,
        UUID: _uuid,
        Decimal: _decimal,
    }

    def _enter(self, container: Any) -> None:
        self._items += len(container)
        if self._items > self._limits.max_items:
            raise PayloadTooLarge(
                f"{self._root} has more than {self._limits.max_items:,} items; "
                "store the data elsewhere and pass a reference, or push several jobs"
            )
        if len(self._containers) >= self._limits.max_depth:
            self._refuse_depth(container)
        self._containers.append(container)
        self._count(1 + len(container))

    def _count(self, size: int) -> None:
        # A lower bound of the encoded size: one string that occurs 100,000 times must not be written out first.
        self._bytes += size
        if self._bytes > self._limits.max_bytes:
            raise too_large(self._root, self._bytes, self._limits, at_least=True)

    def _where(self) -> str:
        return self._root + "".join(self._path)

    def _refuse(self, what: str) -> Never:
        raise PayloadTypeError(f"{self._where()} {what}")

    def _refuse_depth(self, container: Any) -> Never:
        if any(outer is container for outer in self._containers):
            raise PayloadTooDeep(f"{self._where()} contains itself; pass a value without a cycle")
        path = "".join(self._path[:4]) + ("..." if len(self._path) > 4 else "")
        raise PayloadTooDeep(f"{self._root}{path} is nested more than {self._limits.max_depth} levels deep; flatten it")

    def _refuse_type(self, value: Any) -> Never:
        kind = type(value)
        self._refuse(f"is of type {_name(kind)}, expected {_ALLOWED}; {_advice(value, kind)}")

    def _refuse_key(self, key: Any) -> Never:
        self._refuse(f"has a key of type {_name(type(key))}, expected str (JSON would merge 1 and '1'); use str(key)")


def too_large(root: str, size: int, limits: Limits, *, at_least: bool = False) -> PayloadTooLarge:
    """Return the error for a value of ``size`` bytes."""
    return PayloadTooLarge(
        f"{root} has {'at least ' if at_least else ''}{size:,} bytes and the limit is {limits.max_bytes:,}; "
        "store the data elsewhere and pass a reference"
    )


def _step(key: str) -> str:
    """Return the path step to ``key``: ``.price``, or ``['unit price']`` where that is not a name."""
    if key.isidentifier() and len(key) <= _LONGEST_STEP:
        return f".{key}"
    return f"[{key[:_LONGEST_STEP]!a}{'...' if len(key) > _LONGEST_STEP else ''}]"


def _is_found_by_key(zone: ZoneInfo) -> bool:
    """Say whether reading the zone's key gives this very object: two objects differ in a repeated hour."""
    try:
        return bool(zone.key) and ZoneInfo(zone.key) is zone
    except Exception:
        return False


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _advice(value: Any, kind: type) -> str:
    if isinstance(value, Enum):
        return "pass its .value"
    if hasattr(kind, "__dataclass_fields__"):
        return "pass dataclasses.asdict(value)"
    for base in _PLAIN_BASES:
        if issubclass(kind, base):
            return f"a subclass would come back as a plain {base.__name__}: convert it first"
    return "pass an id and load the object in the job"


def untag(value: dict[str, Any]) -> Any:
    """Return what a JSON object stands for; raise `ValueError` (or what a reader raises) for a malformed tag.

    Serves as ``object_hook`` of the decoder, so the members are read already.
    """
    if len(value) != 1:
        return value
    [(key, content)] = value.items()
    if not key.startswith("$"):
        return value
    if key.startswith("$$"):
        return {key[1:]: content}
    read = _READERS.get(key)
    if read is None:
        raise ValueError("unknown tag")
    return read(content)


def _members_of(content: Any) -> list[Any]:
    if type(content) is not list:
        raise ValueError("a list was expected")
    return content


def _read_timedelta(content: Any) -> timedelta:
    days, seconds, microseconds = _members_of(content)
    return timedelta(days, seconds, microseconds)


def _read_time(content: Any) -> time:
    text, fold, zone = content if type(content) is list else (content, 0, None)
    value = time.fromisoformat(text).replace(fold=fold)
    return value if zone is None else value.replace(tzinfo=ZoneInfo(zone))


def _read_datetime(content: Any) -> datetime:
    text, fold, zone = content if type(content) is list else (content, 0, None)
    value = datetime.fromisoformat(text).replace(fold=fold)
    if zone is None:
        return value
    # Whatever is wrong with the zone here (not installed, a folder, unreadable), the offset still tells the instant.
    with suppress(Exception):
        zoned = value.replace(tzinfo=ZoneInfo(zone))
        if zoned.utcoffset() == value.utcoffset():
            return zoned
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda content: tuple(_members_of(content)),
    "$set": lambda content: set(_members_of(content)),
    "$frozenset": lambda content: frozenset(_members_of(content)),
    "$bytes": lambda content: b64decode(content, validate=True),
    "$decimal": lambda content: Decimal(_text(content)),
    "$uuid": lambda content: UUID(hex=content),
    "$date": date.fromisoformat,
    "$time": _read_time,
    "$datetime": _read_datetime,
    "$timedelta": _read_timedelta,
}


def _text(content: Any) -> str:
    if type(content) is not str:
        raise ValueError("a string was expected")
    return content

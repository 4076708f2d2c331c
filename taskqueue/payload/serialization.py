r"""Values to bytes and back, equal in value and type: JSON, with tags for a closed list of further types.

The first byte says which kind follows: ``j`` is plain JSON, which is read by one call of the C decoder; ``t`` is JSON
in which an object may be a tag (see `taskqueue.payload.tags`). Nothing that is read names a class or runs code.

Strings are written as they are, not as ``\u`` escapes, and in UTF-8 that lets surrogates pass: JSON's escapes would
join two surrogates that stand next to each other into one character.
"""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable
from itertools import repeat
from types import NoneType
from typing import Any, Never

from taskqueue.errors import CannotOpen, PayloadTooDeep
from taskqueue.payload.limits import DEFAULT_LIMITS, Limits
from taskqueue.payload.tags import Tagger, too_large, untag

__all__ = ["Limits", "canonical", "decode", "encode"]

_PLAIN = "j"
_TAGGED = "t"
_ATOMS = frozenset({NoneType, bool, float})
_CONTAINERS = frozenset({list, tuple, set, frozenset})
_LARGE = 10**18
_NAMELESS = repeat("")


def _encoder(*, sort_keys: bool) -> Callable[[Any], str]:
    encoder = json.JSONEncoder(
        ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=sort_keys, separators=(",", ":")
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C encoder
        return encoder.encode
    # JSONEncoder.encode makes this object anew at every call, which is a third of its time for a small payload.
    write = make(None, encoder.default, json.encoder.encode_basestring, None, ":", ",", sort_keys, False, False)
    return lambda value: "".join(write(value, 0))


_to_json = _encoder(sort_keys=False)
_to_sorted_json = _encoder(sort_keys=True)


def encode(value: Any, limits: Limits = DEFAULT_LIMITS, *, root: str = "payload") -> bytes:
    """Return ``value`` as bytes from which `decode` makes a value equal in value and type.

    Allowed are None, bool, int, float, str, bytes, list, tuple, dict with str keys, set, frozenset, datetime, date,
    time, timedelta, UUID and Decimal; subclasses and enum members are refused, since they would come back changed.
    Raises `PayloadTypeError`, `PayloadTooLarge` or `PayloadTooDeep`, with the path inside the value, begun by ``root``.
    Equal values whose dicts were filled in the same order give equal bytes in every process.
    """
    if _is_plain(value, limits):
        try:
            data = (_PLAIN + _to_json(value)).encode("utf-8", "surrogatepass")
        except ValueError:  # NaN or Infinity, whose path only the other walk knows
            data = _encode_tagged(value, limits, root)
    else:
        data = _encode_tagged(value, limits, root)
    if len(data) > limits.max_bytes:
        raise too_large(root, len(data), limits)
    return data


def canonical(value: Any, limits: Limits = DEFAULT_LIMITS, *, root: str = "payload") -> bytes:
    """Return bytes that are equal for equal values whatever the order of their dicts, to be digested.

    Cost: two to three times `encode`. Raises as `encode` does.
    """
    return _to_sorted_json(_tagged(value, limits, root)).encode("utf-8", "surrogatepass")


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Return the value that `encode` wrote; raise `CannotOpen` for anything else.

    Bounded by ``max_bytes`` and ``max_depth``; nothing but the closed list of types is ever built.
    """
    if len(data) > limits.max_bytes:
        _refuse()
    try:
        text = data.decode("utf-8", "surrogatepass")
        value, end = _DECODERS[text[0]].raw_decode(text, 1)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError):
        _refuse()
    # Fewer brackets than levels allowed cannot nest too deeply: most payloads need no walk.
    if end != len(text) or (text.count("[") + text.count("{") > limits.max_depth and _is_too_deep(value, limits)):
        _refuse()
    return value


def _refuse() -> Never:
    raise CannotOpen("these bytes are not a value that taskqueue has encoded") from None


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


_DECODERS = {
    _PLAIN: json.JSONDecoder(parse_constant=_refuse_constant),
    _TAGGED: json.JSONDecoder(parse_constant=_refuse_constant, object_hook=untag),
}


def _is_plain(value: Any, limits: Limits) -> bool:
    """Say whether JSON alone keeps ``value`` as it is, within the limits.

    One walk, level by level, which is why depth costs nothing. Whatever is unusual is left to `Tagger`, which decides
    and words the refusal.
    """
    level: list[Any] = [value] if type(value) is dict else [[value]]
    items = size = 0
    for _ in range(limits.max_depth + (type(value) is not dict)):
        deeper: list[Any] = []
        for container in level:
            items += len(container)
            if items > limits.max_items:
                return False
            for key, item in container.items() if type(container) is dict else zip(_NAMELESS, container, strict=False):
                if type(key) is not str:
                    return False
                size += len(key)
                kind = type(item)
                if kind is str:
                    size += len(item)
                elif kind is int:
                    if not -_LARGE < item < _LARGE:
                        return False
                elif kind is dict or kind is list:
                    deeper.append(item)
                elif kind not in _ATOMS:
                    return False
        if not deeper:
            return size <= limits.max_bytes
        level = deeper
    return False


def _tagged(value: Any, limits: Limits, root: str) -> Any:
    try:
        return Tagger(limits, root).tag(value)
    except RecursionError:
        raise PayloadTooDeep(f"{root} is nested too deeply for the stack that is left; flatten it") from None


def _encode_tagged(value: Any, limits: Limits, root: str) -> bytes:
    return (_TAGGED + _to_json(_tagged(value, limits, root))).encode("utf-8", "surrogatepass")


def _is_too_deep(value: Any, limits: Limits) -> bool:
    level = [value]
    for _ in range(limits.max_depth):
        deeper: list[Any] = []
        for item in level:
            if type(item) is dict:
                deeper.extend(item.values())
            elif type(item) in _CONTAINERS:
                deeper.extend(item)
        if not deeper:
            return False
        level = deeper
    return any(type(item) is dict or type(item) in _CONTAINERS for item in level)

"""From text or a typed value to a value in its type and within its bounds.

A converter is put together once for an option and then only called, since each push converts the options it is given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from taskqueue.quantities import format_size, parse_duration, parse_size

Converter = Callable[[Any], Any]

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_TRUE = frozenset(("true", "1", "yes", "on"))
_FALSE = frozenset(("false", "0", "no", "off"))


class Expected(ValueError):
    """A value does not fit; the text completes the sentence "must be ..."."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value has to be."""

    type: Any
    item: Any = None
    nullable: bool = False
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None

    @property
    def nameable_none(self) -> bool:
        """Say whether the word ``none`` stands for no value: wherever it cannot be meant as text."""
        return self.nullable and self.type in (int, float)


def converter(rule: Rule, parse: Converter | None = None) -> Converter:
    """Return the function that converts to ``rule``; ``parse`` replaces what the type would give."""
    if parse is not None:
        return _bounded(parse, rule)
    if isinstance(rule.type, type) and issubclass(rule.type, Enum):
        return _member_of(rule.type)
    if rule.choices is not None:
        return _choice_of(rule.choices)
    made = _typed(rule)
    return _or_none(made) if rule.nameable_none else made


def expectation(rule: Rule) -> str:
    """Return the words that follow "must be"."""
    words = _kind(rule) + _bounds(rule)
    return f"{words}, or none" if rule.nameable_none else words


def value_text(value: Any, unit: str | None = None) -> str:
    """Return a value as a user would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ",".join(value_text(each) for each in value)
    if unit == "bytes":
        return format_size(value)
    return _figure(value) if isinstance(value, float) else str(value)


def _typed(rule: Rule) -> Converter:
    if rule.type is tuple:
        return _bounded(_tuple_of(converter(Rule(rule.item))), rule, measure=len)
    if rule.type is str:
        return _bounded(_text, rule, measure=len)
    if rule.unit == "bytes" and rule.type is int:
        return _bounded(parse_size, rule)
    if rule.unit == "seconds" and rule.type is float:
        return _bounded(parse_duration, rule)
    plain: Converter | None = {int: _whole, float: _number, bool: _switch}.get(rule.type)
    if plain is None:
        raise TypeError(f"an option of type {rule.type!r} needs a parser of its own: pass parse=")
    return _bounded(plain, rule)


def _bounded(parse: Converter, rule: Rule, measure: Callable[[Any], float] | None = None) -> Converter:
    if rule.minimum is None and rule.maximum is None:
        return parse
    low = -math.inf if rule.minimum is None else rule.minimum
    high = math.inf if rule.maximum is None else rule.maximum

    def bounded(value: Any) -> Any:
        converted = parse(value)
        if converted is not None and not low <= (converted if measure is None else measure(converted)) <= high:
            raise ValueError("out of bounds")
        return converted

    return bounded


def _or_none(parse: Converter) -> Converter:
    def parse_or_none(value: Any) -> Any:
        if isinstance(value, str) and value.strip().lower() == "none":
            return None
        return parse(value)

    return parse_or_none


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("not text")


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise TypeError("not a whole number")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError("not a number")
    if isinstance(value, str) and not (value.isascii() and "_" not in value):
        raise ValueError("not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("neither true nor false")


def _choice_of(choices: tuple[str, ...]) -> Converter:
    spelled = {choice.lower(): choice for choice in choices}

    def choose(value: Any) -> str:
        if isinstance(value, str):
            chosen = spelled.get(value.strip().lower())
            if chosen is not None:
                return chosen
        raise ValueError("not a choice")

    return choose


def _member_of(kind: type[Enum]) -> Converter:
    members = {str(member.value).lower(): member for member in kind}

    def member(value: Any) -> Enum:
        if isinstance(value, kind):
            return value
        found = members.get(value.strip().lower()) if isinstance(value, str) else None
        if found is None:
            raise ValueError("not a member")
        return found

    return member


def _tuple_of(parse: Converter) -> Converter:
    def parse_all(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [part for part in (part.strip() for part in value.split(",")) if part]
        elif isinstance(value, (set, frozenset)):
            value = sorted(value)
        elif not isinstance(value, (list, tuple)):
            raise TypeError("not a list")
        return tuple([parse(each) for each in value])

    return parse_all


def _kind(rule: Rule) -> str:
    if rule.choices is not None:
        return f"one of {', '.join(rule.choices)}"
    if rule.unit == "bytes":
        return "a size in bytes, or such as 50MB or 64MiB,"
    if rule.unit == "seconds":
        return "seconds, or such as 30s, 5m, 2h or 30d,"
    counted = f" of {rule.unit}" if rule.unit else ""
    kinds = {int: f"a whole number{counted}", float: f"a number{counted}", str: "text", bool: "true or false"}
    if rule.type is tuple:
        return f"a list of {'text' if rule.item is str else getattr(rule.item, '__name__', 'values')}"
    return kinds.get(rule.type, f"a {getattr(rule.type, '__name__', 'value')}")


def _bounds(rule: Rule) -> str:
    show = format_size if rule.unit == "bytes" else _figure
    low = None if rule.minimum is None else show(rule.minimum)
    high = None if rule.maximum is None else show(rule.maximum)
    measure = {str: " characters", tuple: " elements"}.get(rule.type, "")
    if low is not None and high is not None:
        return f" of {low} to {high}{measure}" if measure else f" from {low} to {high}"
    if low == "1" and rule.type is str:
        return " that is not empty"
    if low is not None:
        return f" of at least {low}{measure}" if measure else f" from {low} up"
    return f" of at most {high}{measure}" if high is not None else ""


def _figure(value: float) -> str:
    return f"{value:g}" if value == int(value) and abs(value) >= 1e15 else f"{value:.15g}"

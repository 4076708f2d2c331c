"""The flags by which jobs are chosen, declared once for every command that lists, retries or cancels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.conversion import Expected
from taskqueue.errors import UsageError, did_you_mean
from taskqueue.job_options import parse_queue, parse_text, parse_time
from taskqueue.options import convert, flag_layer, option, option_table, resolve, shown
from taskqueue.quantities import parse_duration
from taskqueue.states import State

MOST_LISTED = 10_000
_AGE = re.compile(r"[0-9.]+ *[a-z]+", re.IGNORECASE)


def parse_queues(value: Any) -> tuple[str, ...]:
    """Return queue names; text is split at commas."""
    return tuple(dict.fromkeys(checked_queue(each) for each in _pieces(value)))


def parse_states(value: Any) -> tuple[str, ...]:
    """Return states; text is split at commas."""
    states = tuple(dict.fromkeys(each.lower() for each in _pieces(value)))
    for state in states:
        if state not in tuple(State):
            near = did_you_mean(state, tuple(State))
            raise UsageError(f"{shown(state)} is none of {', '.join(State)}{near}")
    return states


def parse_since(value: Any) -> datetime:
    """Return a time for ISO 8601 text with a zone, seconds since 1970, or an age such as ``2h`` or ``7d``."""
    if isinstance(value, str) and _AGE.fullmatch(value.strip()):
        try:
            return SYSTEM_CLOCK.now() - timedelta(seconds=parse_duration(value))
        except (ValueError, OverflowError):
            value = None
    try:
        return parse_time(value)
    except ValueError:
        raise Expected("an age such as 30m, 2h or 7d, or a time with its zone such as 2026-12-24T18:00:00Z") from None


def parse_class(value: Any) -> str:
    """Return the name under which jobs of a class are stored, for it or, where the class is known here, an alias."""
    from taskqueue import jobs  # noqa: F401 - enters the ready-made classes
    from taskqueue.registry import REGISTRY

    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise Expected("the name of a job class")
    known = REGISTRY.find(value)
    return str(known.job_class) if known is not None else value


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs: all conditions given have to hold."""

    queue: tuple[str, ...] = option(
        (), help="Only this queue; may be given several times.", parse=parse_queues, metavar="NAME"
    )
    state: tuple[str, ...] = option(
        (), help="Only this state; may be given several times.", parse=parse_states, metavar="STATE"
    )
    tag: str | None = option(None, help="Only jobs with this tag.", parse=parse_text)
    job_class: str | None = option(
        None, help="Only jobs of this class.", parse=parse_class, flag="--class", metavar="CLASS"
    )
    since: datetime | None = option(
        None,
        help="Only jobs pushed since: an age such as 30m, 2h or 7d, or a time such as 2026-12-24T18:00:00Z.",
        parse=parse_since,
        metavar="TIME",
    )
    limit: int = option(50, help="Most jobs shown, the newest first.", minimum=1, maximum=MOST_LISTED)

    def conditions(self) -> dict[str, Any]:
        """Return those given, as the manager takes them."""
        named = {name: getattr(self, name) for name in ("queue", "state", "tag", "job_class", "since")}
        return {name: value for name, value in named.items() if value not in (None, ())}


CHOOSING = ("queue", "tag", "job_class", "since")
"""The filters of commands that set the state themselves and take all that match."""


def read_filters(given: Mapping[str, Any]) -> Filters:
    """Return the filters that were typed; raise `UsageError` for one that cannot be meant."""
    return resolve(Filters, [flag_layer(Filters, given)]).value


def checked_queue(name: str, source: str = "") -> str:
    """Return a queue's name, or raise `UsageError` saying what a name may hold."""
    checked: str = convert(option_table(_Named)["queue"], name, source, error=UsageError)
    return checked


@dataclass(frozen=True, slots=True)
class _Named:
    queue: str = option("default", help="", parse=parse_queue)


def _pieces(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise Expected("a list of names")
    return [piece.strip() for each in value for piece in str(each).split(",")]

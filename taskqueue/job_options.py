"""The options of a job, each declared once: class attributes, keyword arguments, flags and docs follow from here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

from taskqueue.backoff import LONGEST_DELAY, Backoff, fixed
from taskqueue.clock import EPOCH
from taskqueue.conversion import Expected
from taskqueue.errors import InvalidOption, UsageError
from taskqueue.ids import parse_id
from taskqueue.options import option
from taskqueue.states import Delivery, OnConflict, ParentFailure

_QUEUE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
MOST_TAGS = 32
LONGEST_TAG = 64
MOST_PARENTS = 1000


class Priority(IntEnum):
    """How urgent a job is: a higher number runs first. Any whole number from 0 to 100 will do."""

    LOW = 1
    NORMAL = 5
    HIGH = 10
    URGENT = 15


def parse_queue(value: Any) -> str:
    """Return a queue name: 1 to 64 ASCII letters, digits and ``_ . : -``."""
    if isinstance(value, str) and _QUEUE.fullmatch(value):
        return value
    raise Expected("1 to 64 letters, digits or any of _ - . :")


def parse_priority(value: Any) -> int:
    """Return a priority from 0 to 100, also for the names low, normal, high and urgent."""
    named = Priority.__members__.get(value.strip().upper()) if isinstance(value, str) else None
    if named is not None:
        return int(named)
    try:
        number = int(value) if isinstance(value, str) or type(value) in (int, Priority) else -1
    except ValueError:
        number = -1
    if 0 <= number <= 100:
        return number
    raise Expected("low (1), normal (5), high (10), urgent (15) or a whole number from 0 to 100")


def parse_text(value: Any) -> str:
    """Return a short clear text that every database can store: no NUL and no half of a surrogate pair."""
    if isinstance(value, str) and 0 < len(value) <= LONGEST_TAG and "\0" not in value:
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    raise Expected(f"text of 1 to {LONGEST_TAG} characters without NUL or lone surrogates")


def parse_tags(value: Any) -> tuple[str, ...]:
    """Return tags without duplicates, in the order given; text is split at commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise Expected("a list of texts")
    found: dict[str, None] = {}
    for tag in value:
        found[parse_text(tag)] = None
        if len(found) > MOST_TAGS:
            raise Expected(f"at most {MOST_TAGS} tags")
    return tuple(found)


def parse_time(value: Any) -> datetime:
    """Return an aware UTC time for an aware datetime, seconds since 1970, or ISO 8601 text with a zone (or ``Z``)."""
    at = value
    if isinstance(value, str):
        try:
            at = float(value) if re.fullmatch(r"\d+(\.\d+)?", value.strip()) else datetime.fromisoformat(value.strip())
        except ValueError:
            at = None
    if type(at) in (int, float):
        at = datetime.fromtimestamp(at, UTC) if 0 <= at < 1e11 else None
    if isinstance(at, datetime) and at.tzinfo is not None and EPOCH <= (at := at.astimezone(UTC)) < _LATEST:
        return at
    raise Expected("a time with its zone, such as 2026-12-24T18:00:00Z or seconds since 1970")


def parse_backoff_option(value: Any) -> Backoff:
    """Return a backoff for a `Backoff` or for a number of seconds, which then is the first delay."""
    if isinstance(value, Backoff):
        return value
    try:
        return Backoff(base=float(value), cap=max(3600.0, float(value)))
    except (TypeError, ValueError):
        raise Expected("a Backoff or the seconds of the first delay") from None


def parse_unique_key(value: Any) -> str:
    """Return a unique key: 1 to 255 characters."""
    if isinstance(value, str) and 0 < len(value) <= 255:
        return value
    raise Expected("text of 1 to 255 characters")


def parse_dependencies(value: Any) -> tuple[UUID, ...]:
    """Return the ids of jobs, handles, records, ids and texts, each once; texts are split at commas."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise Expected("a list of jobs, handles or ids")
    found: dict[UUID, None] = {}
    for each in value:
        parts = [part.strip() for part in each.split(",") if part.strip()] if isinstance(each, str) else [each]
        found.update((_id_of(part), None) for part in parts)
        if len(found) > MOST_PARENTS:
            raise Expected(f"at most {MOST_PARENTS:,} jobs: let a job in between gather some of them")
    return tuple(found)


def _id_of(parent: Any) -> UUID:
    try:
        return parse_id(getattr(parent, "id", parent))
    except UsageError:
        raise Expected("a list of jobs, handles or ids (UUIDs)") from None


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job is to be run. A class sets its own defaults as attributes; keyword arguments override them."""

    queue: str = option("default", help="Queue to wait in.", parse=parse_queue)
    priority: int = option(
        int(Priority.NORMAL),
        help="0 to 100, higher runs first: low 1, normal 5, high 10, urgent 15.",
        parse=parse_priority,
    )
    tags: tuple[str, ...] = option((), help="Labels to find the job by; stored in clear.", parse=parse_tags)
    category: str | None = option(None, help="One label for statistics; stored in clear.", parse=parse_text)
    dependencies: tuple[UUID, ...] = option(
        (), help="Jobs that must complete before this one starts.", parse=parse_dependencies, metavar="ID,ID"
    )
    on_parent_failure: ParentFailure = option(
        ParentFailure.FAIL,
        help="What becomes of this job when one of its dependencies fails or is cancelled: it fails too, is cancelled,"
        " runs all the same, or waits until that one has been retried and completes.",
    )
    delay: float | None = option(
        None, help="Seconds to wait before the first attempt.", unit="seconds", minimum=0, maximum=LONGEST_DELAY
    )
    at: datetime | None = option(None, help="Earliest time of the first attempt.", parse=parse_time)
    run_at: datetime | None = option(None, help="The same as --at.", parse=parse_time)
    expires_in: float | None = option(
        None,
        help="Seconds after which a job that has not started fails as expired.",
        unit="seconds",
        minimum=0.001,
        maximum=LONGEST_DELAY,
    )
    max_attempts: int = option(3, help="Attempts before the job fails for good.", minimum=1, maximum=1000)
    retry_interval: float | None = option(
        None,
        help="Seconds between attempts, always the same; takes the place of backoff.",
        unit="seconds",
        minimum=0,
        maximum=LONGEST_DELAY,
    )
    backoff: Backoff | None = option(
        None, help="Growing delays between attempts: the first one in seconds.", parse=parse_backoff_option
    )
    timeout: float | None = option(
        None,
        help="Seconds that one attempt may run; none: no limit.",
        unit="seconds",
        minimum=0.001,
        maximum=30 * 86_400,
    )
    memory_limit: int | None = option(
        None,
        help="Memory that one attempt may take beyond what its worker has before it; none: no limit of its own.",
        unit="bytes",
        minimum=1024**2,
        maximum=2**62,
    )
    force_spawn: bool = option(
        False, help="Run in a worker of its own, which is started for this job beyond the node's most and ends with it."
    )
    delivery: Delivery = option(
        Delivery.AT_LEAST_ONCE, help="at_most_once: never start again after a crash; needs max_attempts 1."
    )
    unique_key: str | None = option(
        None, help="Refuse the push while another live job has this key.", parse=parse_unique_key
    )
    on_conflict: OnConflict = option(
        OnConflict.ERROR,
        help="Where the unique key is taken: error refuses the push, keep leaves the other job, replace cancels it.",
    )

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        times = [name for name in ("delay", "at", "run_at") if getattr(self, name) is not None]
        if len(times) > 1:
            raise InvalidOption(f"give only one of delay, at and run_at; got {' and '.join(times)}")
        if self.delivery is Delivery.AT_MOST_ONCE and self.max_attempts != 1:
            raise InvalidOption(
                f"delivery at_most_once never starts a job again: set max_attempts=1, got {self.max_attempts}"
            )

    def due_at(self) -> datetime | None:
        """Return the time given by ``at`` or ``run_at``; a delay is counted by whoever pushes."""
        return self.run_at if self.run_at is not None else self.at

    def stored_backoff(self) -> str | None:
        """Return the form in which the backoff is stored; None stands for the default."""
        if self.retry_interval is not None:
            return fixed(self.retry_interval).to_text()
        return self.backoff.to_text() if self.backoff is not None else None

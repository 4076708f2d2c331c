"""What happened, as values, and the one place to listen to it: who decides emits, logs and metrics subscribe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args
from uuid import UUID

from taskqueue.errors import UsageError, did_you_mean

EventName = Literal[
    "waiting",
    "postponed",
    "processing",
    "done",
    "failed",
    "timeout",
    "cancel",
    "worker_spawn",
    "worker_kill",
]
EVENT_NAMES: tuple[str, ...] = get_args(EventName)
EVERY_EVENT = "*"

_logger = logging.getLogger("taskqueue.events")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job or a worker (``pid``). ``detail`` never holds a payload, result or message."""

    name: EventName
    job_id: UUID | None = None
    job_class: str | None = None
    queue: str | None = None
    pid: int | None = None
    detail: str = ""


Listener = Callable[[Event], object]


class Events:
    """Calls listeners in the order in which they came, in the thread that emits."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def on(self, name: str, listener: Listener) -> None:
        """Call ``listener`` for each event of this name; ``*`` is every event."""
        if name != EVERY_EVENT and name not in EVENT_NAMES:
            raise UsageError(
                f"there is no event {name!r}{did_you_mean(name, EVENT_NAMES)}; use one of {EVENT_NAMES} or '*'"
            )
        self._listeners.setdefault(name, []).append(listener)

    def wanted(self, name: EventName) -> bool:
        """Say whether anybody listens, so that nothing need be made for nobody."""
        return bool(self._listeners) and (name in self._listeners or EVERY_EVENT in self._listeners)

    def emit(self, event: Event) -> None:
        """Tell every listener. One that raises is logged and the others are still told."""
        for listener in (*self._listeners.get(event.name, ()), *self._listeners.get(EVERY_EVENT, ())):
            try:
                listener(event)
            except Exception:
                _logger.exception("a listener to %r failed", event.name)

"""`JobRecord`: a stored job as a value, and what is known of its failed attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from taskqueue.states import Delivery, Reason, State


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """An exception as it was stored: its type in clear, message and traceback sealed."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        """Return type and message."""
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that did not complete. ``error`` is None where the worker could leave none, as after a SIGKILL."""

    attempt: int
    lease: int
    node_id: int | None
    reason: str
    started_at: datetime | None
    finished_at: datetime
    error: ErrorDetails | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, as its handler said: 0 to 100, and a short text."""

    percent: float
    message: str | None = None

    def __str__(self) -> str:
        """Return it as ``42.5 % (message)``."""
        return f"{self.percent:g} %" + (f" ({self.message})" if self.message else "")


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job, live or finished, as it was stored when it was read.

    ``payload``, ``result`` and ``progress`` are opened when they are asked for and raise `CannotOpen` where no key at
    hand fits.
    """

    id: UUID
    job_class: str
    queue: str
    priority: int
    state: State
    reason: Reason | None
    tags: tuple[str, ...]
    category: str | None
    attempt: int
    max_attempts: int
    lease: int
    crashes: int
    losses: int
    delivery: Delivery
    timeout: float | None
    memory_limit: int | None
    force_spawn: bool
    created_at: datetime
    ready_at: datetime
    run_at: datetime | None
    expires_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    duration: float | None
    node_id: int | None
    blocked_by: str | None
    key_id: str
    attempts: Sequence[Attempt] = ()
    dependencies: tuple[UUID, ...] = ()
    """What a blocked job still waits for; read for a single job, empty in listings."""
    _open: Callable[[str], Any] = field(default=lambda _: None, repr=False, compare=False)

    @property
    def payload(self) -> Any:
        """Open the payload; None for a completed job whose payload was dropped."""
        return self._open("payload")

    @property
    def result(self) -> Any:
        """Open what the handler returned; None where it returned nothing."""
        return self._open("result")

    @property
    def progress(self) -> Progress | None:
        """Open how far the job has come, in its last run that said so; None where none did."""
        said = self._open("progress")
        return Progress(said["percent"], said["message"]) if said is not None else None

    @property
    def error(self) -> ErrorDetails | None:
        """Return the error of the last attempt that did not complete, if any."""
        return self.attempts[-1].error if self.attempts else None

    @property
    def finished(self) -> bool:
        """Say whether the job has reached a final state."""
        return self.state.final

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints of a job: neither payload nor result, times in ISO 8601."""
        shown = {
            "id": str(self.id),
            "job_class": self.job_class,
            "queue": self.queue,
            "priority": self.priority,
            "state": self.state.value,
            "reason": self.reason.value if self.reason else None,
            "tags": list(self.tags),
            "category": self.category,
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "crashes": self.crashes,
            "losses": self.losses,
            "delivery": self.delivery.value,
            "timeout": self.timeout,
            "memory_limit": self.memory_limit,
            "force_spawn": self.force_spawn,
            "duration": self.duration,
            "node_id": self.node_id,
            "blocked_by": self.blocked_by,
            "dependencies": [str(each) for each in self.dependencies],
            "key_id": self.key_id,
        }
        for name in ("created_at", "ready_at", "run_at", "expires_at", "started_at", "finished_at"):
            at: datetime | None = getattr(self, name)
            shown[name] = iso(at)
        return shown


def iso(at: datetime | None) -> str | None:
    """Return a time as ISO 8601 text that ends in ``Z``."""
    return at.isoformat().replace("+00:00", "Z") if at is not None else None

"""`JobHandle`: what a push returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from taskqueue.errors import JobFailed
from taskqueue.record import JobRecord
from taskqueue.states import State

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Access:
    """The few operations of a manager that a handle needs."""

    get: Callable[[UUID], JobRecord]
    wait: Callable[[UUID, float | None], JobRecord]
    cancel: Callable[[UUID], bool]


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A pushed job, to be asked about."""

    id: UUID
    _access: Access

    def record(self) -> JobRecord:
        """Return the job as it stands now."""
        return self._access.get(self.id)

    def wait(self, timeout: float | None = None) -> JobRecord:
        """Wait until the job has finished and return its record; raise `WaitTimeout` after ``timeout`` seconds."""
        return self._access.wait(self.id, timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Wait until the job has finished and return what its handler returned; raise `JobFailed` if it failed."""
        record = self.wait(timeout)
        if record.state is not State.COMPLETED:
            raise JobFailed(failure_text(record))
        return record.result

    def cancel(self) -> bool:
        """Cancel the job if it still waits; say whether it was cancelled."""
        return self._access.cancel(self.id)


def failure_text(record: JobRecord) -> str:
    """Return the sentence for a job that did not complete: the error's type, never its message."""
    why = record.error.type if record.error is not None else (record.reason or record.state)
    return f"job {record.id} ({record.job_class}) ended as {record.state}: {why}; get_job() has the whole error"

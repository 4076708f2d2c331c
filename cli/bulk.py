"""Actions on several jobs: those named by id, or all that filters leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskqueue.errors import TaskQueueError, UsageError
from taskqueue.ids import parse_id

from .filters import read_filters
from .output import note, write


@dataclass(frozen=True, slots=True)
class Chosen:
    """The ids that were named, or else the conditions."""

    ids: tuple[str, ...]
    conditions: Mapping[str, Any]


def choose(ids: Sequence[str] | None, given: Mapping[str, Any], *, every: bool) -> Chosen:
    """Return what an action is about; raise `UsageError` unless it is either ids or ``--all`` or filters."""
    conditions = read_filters(given).conditions()
    if ids and (conditions or every):
        raise UsageError("give ids, or --all or filters, not both")
    if not (ids or conditions or every):
        raise UsageError("name the jobs: give their ids, a filter such as --queue, or --all")
    return Chosen(_checked(ids or ()), conditions)


def each_of(ids: Sequence[str], act: Callable[[str], object], done: str) -> int:
    """Do ``act`` to each job and say how it went; return 0, or the exit code of the first that could not be done."""
    code = 0
    for job_id in _checked(ids):
        try:
            act(job_id)
        except TaskQueueError as error:
            note(str(error))
            code = code or error.exit_code
        else:
            write(f"{job_id} {done}")
    return code


def _checked(ids: Sequence[str]) -> tuple[str, ...]:
    """Return ids in their usual form and once each; refuse a wrong one before anything is done."""
    return tuple(dict.fromkeys(str(parse_id(each)) for each in ids))

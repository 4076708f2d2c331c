"""The states of a job, why it failed, and the one table of what may follow what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a job stands. The first four are live, the last three final."""

    PENDING = "pending"
    PROCESSING = "processing"
    DELAYED = "delayed"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def code(self) -> int:
        """Return the number that stands for this state in the database; never reused, never renumbered."""
        return _CODES[self]

    @property
    def final(self) -> bool:
        """Say whether a job in this state has left the live table."""
        return self in FINAL


class Reason(StrEnum):
    """Why a failed job failed."""

    ERROR = "error"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    LOST = "lost"
    EXPIRED = "expired"
    UNDECRYPTABLE = "undecryptable"
    DEPENDENCY_FAILED = "dependency_failed"


class Delivery(StrEnum):
    """How often a job may start: again after a crash, or never a second time."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class ParentFailure(StrEnum):
    """What becomes of a job when a job that it depends on fails."""

    FAIL = "fail"
    CANCEL = "cancel"
    RUN = "run"
    WAIT = "wait"


class OnConflict(StrEnum):
    """What becomes of a push whose unique key another live job has."""

    ERROR = "error"
    KEEP = "keep"
    REPLACE = "replace"


_CODES: Mapping[State, int] = MappingProxyType({state: code for code, state in enumerate(State)})
_STATES: Mapping[int, State] = MappingProxyType({code: state for state, code in _CODES.items()})

LIVE = frozenset({State.PENDING, State.PROCESSING, State.DELAYED, State.BLOCKED})
FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


def state_of(code: int) -> State:
    """Return the state that ``code`` stands for in the database."""
    return _STATES[code]


class Verb(Enum):
    """What can happen to a job."""

    PUSH = "push"
    PROMOTE = "promote"
    UNBLOCK = "unblock"
    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    RELEASE = "release"
    PARK = "park"
    RESCUE = "rescue"
    CANCEL = "cancel"
    REVIVE = "revive"
    PURGE = "purge"


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a verb may start and where it may lead. No source: the job is new. No target: its row goes away."""

    sources: frozenset[State]
    targets: frozenset[State]
    raises_lease: bool = False


def _move(sources: str, targets: str, *, raises_lease: bool = False) -> Transition:
    return Transition(
        frozenset(State(name) for name in sources.split()),
        frozenset(State(name) for name in targets.split()),
        raises_lease,
    )


TRANSITIONS: Mapping[Verb, Transition] = MappingProxyType(
    {
        Verb.PUSH: _move("", "pending delayed blocked"),
        Verb.PROMOTE: _move("delayed", "pending"),
        Verb.UNBLOCK: _move("blocked", "pending delayed failed cancelled"),
        Verb.CLAIM: _move("pending", "processing", raises_lease=True),
        Verb.COMPLETE: _move("processing", "completed"),
        Verb.RETRY: _move("processing", "delayed pending", raises_lease=True),
        Verb.FAIL: _move("processing", "failed"),
        Verb.RELEASE: _move("processing", "pending delayed", raises_lease=True),
        Verb.PARK: _move("processing", "blocked", raises_lease=True),
        Verb.RESCUE: _move("processing", "pending failed", raises_lease=True),
        Verb.CANCEL: _move("pending delayed blocked processing", "cancelled"),
        Verb.REVIVE: _move("failed cancelled", "pending delayed", raises_lease=True),
        Verb.PURGE: _move("completed failed cancelled", ""),
    }
)
"""The one table of what may follow what; drivers keep to it and a test walks it on each database."""

"""What crosses the seam to the database: sealed and plain values, and nothing else.

Job ids are 16 bytes, times are microseconds since 1970 (UTC), payloads, results and errors are envelopes that no driver
can open. What is made for every job on the hot way is a named tuple and handed to the database's driver as it is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from taskqueue.states import Delivery, ParentFailure, Reason, State, Verb

DELIVERY_CODES: Mapping[Delivery, int] = {Delivery.AT_LEAST_ONCE: 0, Delivery.AT_MOST_ONCE: 1}
PARENT_FAILURE_CODES: Mapping[ParentFailure, int] = {each: code for code, each in enumerate(ParentFailure)}
CRASH_LIMIT = 3
"""A job that has killed this many workers fails with reason ``crashed`` and is left alone."""
CRASHED_AGAIN_DELAY = 10.0
"""Seconds that a job waits after its second crash and later ones."""
STRICT_AT = 2
"""Crashes and losses from which on a job runs while no other such job does on its node."""


class BlockedBy(IntEnum):
    """What a blocked job waits for; the number is stored."""

    NOTHING = 0
    PARENTS = 1
    UNKNOWN_CLASS = 2
    UNKNOWN_KEY = 3


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a database can do. The defaults are the strongest; a driver states only its differences."""

    returning: bool = True
    skip_locked: bool = True
    notify: bool = True
    partial_index: bool = True
    transactional_ddl: bool = True
    concurrent_writers: bool = True
    remote: bool = True
    max_parameters: int = 30_000
    dead_rows: bool = True
    """Whether a row that was changed lingers in an index until it is vacuumed, so that claims need low-water marks."""


class NewJob(NamedTuple):
    """A job to be inserted, in the order of the insert's columns."""

    id: bytes
    queue: str
    rank: int
    job_class: str
    state: int
    created_at: int
    ready_at: int
    run_at: int | None
    expires_at: int | None
    max_attempts: int
    delivery: int
    timeout_ms: int | None
    memory_limit: int | None
    force_spawn: int
    backoff: str | None
    on_parent_failure: int
    tags: str | None
    category: str | None
    key_id: str
    unique_key: bytes | None
    payload: bytes


class Standing(NamedTuple):
    """What a push came to: the job that stands for it, which is another one where that has its unique key."""

    id: bytes
    created: bool
    """Whether this push stored a row."""


class ClaimedJob(NamedTuple):
    """A job as it is handed to a node: all that its run needs, still sealed."""

    id: bytes
    lease: int
    queue: str
    rank: int
    job_class: str
    attempt: int
    max_attempts: int
    crashes: int
    losses: int
    delivery: int
    timeout_ms: int | None
    memory_limit: int | None
    force_spawn: int
    backoff: str | None
    created_at: int
    ready_at: int
    expires_at: int | None
    key_id: str
    payload: bytes
    checkpoint: bytes | None


class Completion(NamedTuple):
    """The good end of a claimed job. ``result`` is sealed, or None where the handler returned nothing."""

    id: bytes
    lease: int
    queue: str
    finished_at: int
    run_us: int
    wait_us: int
    result: bytes | None


class Ending(NamedTuple):
    """Any other end of a claimed job: RETRY, FAIL, RELEASE, PARK or CANCEL.

    ``spent`` says whether the attempt counts; where it does not, the claim's count is given back. ``crashed`` adds one
    to the job's crashes, ``lost`` one to its losses. ``run_at`` is when a retried or released job is due again, None
    for at once. ``error`` is sealed. RETRY, FAIL, a crash and every ending with an ``error_type`` leave a row in
    ``tq_attempts``.
    """

    id: bytes
    lease: int
    queue: str
    verb: Verb
    finished_at: int
    run_us: int = 0
    wait_us: int = 0
    reason: Reason | None = None
    run_at: int | None = None
    spent: bool = True
    crashed: bool = False
    error_type: str | None = None
    error: bytes | None = None
    key_id: str | None = None
    blocked_by: BlockedBy = BlockedBy.NOTHING
    lost: bool = False


class Note(NamedTuple):
    """Something sealed that a running job leaves behind."""

    id: bytes
    lease: int
    sealed: bytes


class Stale(NamedTuple):
    """A write that changed nothing, because the job is no longer held under this lease."""

    id: bytes
    lease: int


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one dispatcher cycle brought: the jobs claimed, in claim order, and the writes that were fenced off."""

    claimed: Sequence[ClaimedJob] = ()
    stale: Sequence[Stale] = ()
    doubtful: bool = False
    """Whether the outcome of a transaction was unknown and had to be looked up: it may still happen."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """How many due jobs became pending, and when the next delayed job is due (None: there is none)."""

    promoted: int
    next_run_at: int | None


@dataclass(frozen=True, slots=True)
class Rescue:
    """What became of the jobs of a dead node."""

    pending: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """Return how many rows were touched; 0 means that nothing is left to rescue."""
        return self.pending + self.failed


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who a node is: what it needs to be known by, and what proves its death to another node on the same host."""

    incarnation: bytes
    name: str
    host: str
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    process_started: int | None
    lease_ms: int
    info: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as stored. ``state`` is ``alive``, ``quiet``, ``draining``, ``stopped`` or ``dead``."""

    id: int
    incarnation: bytes
    name: str
    host: str
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    process_started: int | None
    state: str
    sequence: int
    lease_ms: int
    started_at: int
    beat_at: int
    stopped_at: int | None
    info: str


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, live or finished, as stored: for reading one or listing many, never on the way of a run."""

    id: bytes
    queue: str
    rank: int
    job_class: str
    state: State
    reason: Reason | None
    created_at: int
    ready_at: int
    run_at: int | None
    expires_at: int | None
    claimed_at: int | None
    started_at: int | None
    finished_at: int | None
    run_us: int | None
    lease: int
    attempt: int
    max_attempts: int
    crashes: int
    losses: int
    delivery: int
    timeout_ms: int | None
    memory_limit: int | None
    force_spawn: int
    backoff: str | None
    tags: str | None
    category: str | None
    key_id: str
    unique_key: bytes | None
    node_id: int | None
    blocked_by: BlockedBy
    cancel_requested_at: int | None
    progress: bytes | None
    payload: bytes | None
    result: bytes | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt that did not complete."""

    job_id: bytes
    lease: int
    attempt: int
    node_id: int | None
    reason: str
    started_at: int | None
    finished_at: int
    error_type: str | None
    error: bytes | None
    key_id: str | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: every condition given must hold, none given means all. ``since``/``until`` bound the creation time.

    ``before`` is the cursor of a page: jobs whose id sorts before it. Listings go from the newest id to the oldest.
    """

    ids: Collection[bytes] = ()
    states: Collection[State] = ()
    queues: Collection[str] = ()
    job_class: str | None = None
    tag: str | None = None
    category: str | None = None
    reason: Reason | None = None
    since: int | None = None
    until: int | None = None
    before: bytes | None = None


@dataclass(frozen=True, slots=True)
class JobChanges:
    """What may be changed of a job that waits; None leaves a value as it is. The payload is not among them."""

    queue: str | None = None
    rank: int | None = None
    run_at: int | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue: its counts by state, since when it is paused, and how long its first job has been waiting."""

    queue: str
    counts: Mapping[State, int]
    paused_at: int | None = None
    note: str | None = None
    oldest_ready_at: int | None = None


@dataclass(frozen=True, slots=True)
class RollupRow:
    """What happened in one minute on one queue, over all nodes."""

    minute: int
    queue: str
    completed: int
    failed: int
    retried: int
    run_us: int
    run_us_most: int
    wait_us: int
    wait_us_most: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key that has sealed something here: never the key, only a value that tells it from another."""

    key_id: str
    state: str
    check_value: bytes
    created_at: int
    retired_at: int | None


class Parked(NamedTuple):
    """Jobs of one queue that wait for a node which knows their class, or has their key."""

    queue: str
    blocked_by: int
    job_class: str
    key_id: str
    jobs: int


class Level(StrEnum):
    """How much a finding matters, the least first."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """What one check of a database came to: ``message`` is what was found, ``fix`` what to do about it."""

    check: str
    level: Level
    message: str
    fix: str = ""


@dataclass(slots=True)
class Lanes:
    """What a node serves, and how far it has read: made by `Driver.lanes`, kept by the dispatcher between cycles.

    ``queues`` in the order of service, or None for every queue. Each lane has a low-water mark: the ``ready_at`` up to
    which everything was claimed, so that a claim does not walk again over the dead rows of earlier ones.
    """

    queues: tuple[str, ...] | None
    low: dict[tuple[str, int], int] = field(default_factory=dict)
    look_back_at: float = 0.0
    dear: bool = False
    """Whether the last claim that read every lane from its beginning took much longer than ``usual``, the others."""
    usual: float | None = None
    turn: int = 0
    served: dict[tuple[str, int], int] = field(default_factory=dict)
    """At which turn each lane was served last, where the lanes are walked by the database itself."""

    def look_back(self, *, at_any_price: bool = False) -> None:
        """Have the next claim read every lane from its beginning, where that is not dear."""
        if at_any_price or not self.dear:
            self.look_back_at = 0.0


def tags_to_text(tags: Sequence[str]) -> str | None:
    """Return tags as they are stored with their job: a JSON list, or None where there are none."""
    return json.dumps(list(tags), ensure_ascii=False, separators=(",", ":")) if tags else None


def tags_from_text(text: str | None) -> tuple[str, ...]:
    """Return the tags that `tags_to_text` wrote."""
    return tuple(json.loads(text)) if text else ()

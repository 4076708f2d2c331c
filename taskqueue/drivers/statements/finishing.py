"""Statements for how a claimed job ends, each fenced by (id, lease) and the state.

To finish is to copy the row into history and to delete it: two statements, the same number of rows each.
"""

from __future__ import annotations

from sqlalchemy import Delete, Insert, Update, bindparam, case, delete, func, insert, null, select, update
from sqlalchemy.types import Integer

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import CARRIED, constant, given, in_state, listed
from taskqueue.drivers.tables import attempts, history, jobs

HELD = (
    jobs.c.id == given(jobs, "id", "job"),
    jobs.c.lease == given(jobs, "lease", "held"),
    jobs.c.state + constant(0) == constant(tables.PROCESSING),
)
"""The fence: this very claim of the job. The primary key finds the row, the other two are looked at there.

The sum keeps the state from choosing an index: one that looked empty when it was last analyzed cost 2 ms a job.

Parameters of an UPDATE must not be named like columns, so these are not.
"""

DONE = ("id", "lease", "finished_at", "run_us", "result")
"""What is listed of each completed job."""


def complete(rows: int, *, keeping_payload: bool = False, locking: bool = False) -> Insert:
    """Note a list of completed jobs in history, those that are held under their lease; `remove` has to follow.

    The payload goes, unless it is to be kept; so does the checkpoint, which was for the run. With ``locking`` the rows
    are locked as they are read, in the order of the list.
    """
    done = listed("done", history, DONE, rows)
    copied = {name: jobs.c[name] for name in CARRIED if name != "checkpoint"} | {
        "state": constant(tables.COMPLETED),
        "started_at": done.c.finished_at - done.c.run_us,
        "finished_at": done.c.finished_at,
        "run_us": done.c.run_us,
        "result": done.c.result,
    }
    if keeping_payload:
        copied["payload"] = jobs.c.payload
    # The sum keeps the state from choosing the index: the primary key finds each row, the rest is looked at there.
    held = (jobs.c.lease == done.c.lease, jobs.c.state + constant(0) == constant(tables.PROCESSING))
    found = select(*copied.values()).select_from(done.join(jobs, jobs.c.id == done.c.id)).where(*held)
    if locking:
        # In a small table the whole of it would be read and locked, and rows that others insert be waited for.
        found = found.prefix_with("STRAIGHT_JOIN").with_hint(jobs, "FORCE INDEX (PRIMARY)").with_for_update()
    return insert(history).from_select(list(copied), found, include_defaults=False)


def remove(rows: int) -> Delete:
    """Take away a list of rows that were found to be held and copied, in the same transaction."""
    return delete(jobs).where(jobs.c.id.in_([bindparam(f"id_{row}", type_=jobs.c.id.type) for row in range(rows)]))


_ENDED = {name: jobs.c[name] for name in (*CARRIED, "payload")} | {
    "state": given(history, "state"),
    "started_at": func.coalesce(jobs.c.started_at, given(history, "started_at")),
    "finished_at": given(history, "finished_at"),
    "run_us": given(history, "run_us"),
    "reason": given(history, "reason"),
    "lease": jobs.c.lease + bindparam("lease_raised", type_=Integer),
    "attempt": jobs.c.attempt - bindparam("given_back", type_=Integer),
    "crashes": jobs.c.crashes + bindparam("crashed", type_=Integer),
    "losses": jobs.c.losses + bindparam("lost", type_=Integer),
}
END = insert(history).from_select(list(_ENDED), select(*_ENDED.values()).where(*HELD), include_defaults=False)
"""Note a job that failed or was cancelled, with its payload, so that it can be revived."""

REMOVE: Delete = delete(jobs).where(*HELD)
"""Take away the held row, after it was copied."""

NOTE_ATTEMPT: Insert = insert(attempts).from_select(
    list(attempts.c.keys()),
    select(
        jobs.c.id,
        jobs.c.lease,
        jobs.c.attempt,
        jobs.c.node_id,
        given(attempts, "reason"),
        func.coalesce(jobs.c.started_at, given(attempts, "started_at")),
        given(attempts, "finished_at"),
        given(attempts, "error_type"),
        given(attempts, "error"),
        given(attempts, "key_id"),
    ).where(*HELD),
)
"""Leave a row for an attempt that did not complete; to be run before the job's row changes."""

HAND_BACK: Update = (
    update(jobs)
    .where(*HELD)
    .values(
        {
            jobs.c.state: given(jobs, "state", "to"),
            jobs.c.ready_at: func.coalesce(given(jobs, "ready_at", "ready"), jobs.c.ready_at),
            jobs.c.run_at: func.coalesce(given(jobs, "run_at", "due"), jobs.c.run_at),
            jobs.c.lease: jobs.c.lease + constant(1),
            jobs.c.attempt: jobs.c.attempt - bindparam("given_back", type_=Integer),
            jobs.c.crashes: jobs.c.crashes + bindparam("crashed", type_=Integer),
            jobs.c.losses: jobs.c.losses + bindparam("lost", type_=Integer),
            jobs.c.blocked_by: given(jobs, "blocked_by", "blocker"),
            jobs.c.node_id: null(),
            jobs.c.claimed_at: null(),
            jobs.c.started_at: null(),
            jobs.c.start_recorded: constant(0),
        }
    )
)
"""Give a claimed job back: retried, released, parked or rescued. The lease rises, so that its last holder is fenced."""

RECORD_START: Update = (
    update(jobs)
    .where(*HELD, jobs.c.node_id == given(jobs, "node_id", "node"))
    .values({jobs.c.start_recorded: constant(1), jobs.c.started_at: given(jobs, "started_at", "now")})
)

_COMPLETED = {name: jobs.c[name] for name in CARRIED if name not in ("progress", "checkpoint")} | {
    "state": constant(tables.COMPLETED),
    "started_at": given(history, "finished_at") - given(history, "run_us"),
    "finished_at": given(history, "finished_at"),
    "run_us": given(history, "run_us"),
    "result": given(history, "result"),
    "payload": case((given(history, "state", "keeping") == constant(1), jobs.c.payload)),
}
COMPLETE = insert(history).from_select(
    list(_COMPLETED), select(*_COMPLETED.values()).where(*HELD), include_defaults=False
)
"""Note one job as completed, with its payload where ``keeping`` is 1. In VALUES a null would have to have its type."""

HOLD = select(jobs.c.node_id, jobs.c.has_dependents).where(*HELD).with_for_update()
"""Lock a job that is held under this lease, and ask who holds it."""

FINISHED_AS = select(history.c.lease, history.c.state).where(history.c.id == given(history, "id", "job"))
"""How a job finished, and under which lease."""

LEASES = select(jobs.c.id, jobs.c.lease).where(
    in_state(jobs, tables.PROCESSING), jobs.c.id.in_(bindparam("ids", expanding=True))
)
"""The leases under which these jobs are held now."""

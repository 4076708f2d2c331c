"""Statements for how a claimed job ends, each fenced by (id, lease) and the state.

To finish is to copy the row into history and to delete it: two statements, the same number of rows each.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Insert, Null, Update, bindparam, delete, func, insert, null, select, update
from sqlalchemy.types import Integer

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import CARRIED, constant, given, in_state
from taskqueue.drivers.tables import attempts, history, jobs

HELD = (jobs.c.id == given(jobs, "id"), jobs.c.lease == given(jobs, "lease"), in_state(jobs, tables.PROCESSING))
"""The fence: this very claim of the job. The primary key finds the row, the other two are looked at there."""

_STARTED = func.coalesce(jobs.c.started_at, given(history, "started_at"))
_OF_A_RUN = ("progress", "checkpoint")


def _into_history(**values: Any) -> Insert:
    """Copy the held row into history; ``values`` replace the columns of the same name."""
    copied = {name: jobs.c[name] for name in CARRIED} | values
    wanted = {name: value for name, value in copied.items() if not isinstance(value, Null)}
    return insert(history).from_select(list(wanted), select(*wanted.values()).where(*HELD), include_defaults=False)


def _complete(**values: Any) -> Insert:
    return _into_history(
        state=constant(tables.COMPLETED),
        started_at=given(history, "finished_at") - given(history, "run_us"),
        finished_at=given(history, "finished_at"),
        run_us=given(history, "run_us"),
        result=given(history, "result"),
        **dict.fromkeys(_OF_A_RUN, null()),
        **values,
    )


COMPLETE = _complete()
"""Note a completed job, without its payload."""

COMPLETE_KEEPING_PAYLOAD = _complete(payload=jobs.c.payload)
"""The same for a queue that keeps payloads."""

END = _into_history(
    state=given(history, "state"),
    payload=jobs.c.payload,
    started_at=_STARTED,
    finished_at=given(history, "finished_at"),
    run_us=given(history, "run_us"),
    reason=given(history, "reason"),
    lease=jobs.c.lease + bindparam("lease_raised", type_=Integer),
    attempt=jobs.c.attempt - bindparam("given_back", type_=Integer),
    crashes=jobs.c.crashes + bindparam("crashed", type_=Integer),
)
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
            jobs.c.state: given(jobs, "state"),
            jobs.c.ready_at: given(jobs, "ready_at"),
            jobs.c.run_at: func.coalesce(given(jobs, "run_at"), jobs.c.run_at),
            jobs.c.lease: jobs.c.lease + constant(1),
            jobs.c.attempt: jobs.c.attempt - bindparam("given_back", type_=Integer),
            jobs.c.crashes: jobs.c.crashes + bindparam("crashed", type_=Integer),
            jobs.c.losses: jobs.c.losses + bindparam("lost", type_=Integer),
            jobs.c.blocked_by: given(jobs, "blocked_by"),
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
    .where(*HELD, jobs.c.node_id == given(jobs, "node_id"))
    .values({jobs.c.start_recorded: constant(1), jobs.c.started_at: given(jobs, "started_at")})
)

LEASES = select(jobs.c.id, jobs.c.lease).where(
    in_state(jobs, tables.PROCESSING), jobs.c.id.in_(bindparam("ids", expanding=True))
)
"""The leases under which these jobs are held now."""


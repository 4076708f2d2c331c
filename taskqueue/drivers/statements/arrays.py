"""Statements over whole lists at once, for a database with arrays, RETURNING and data-modifying CTEs.

Constants are spelled out: a bound state would not match the partial indexes. Lists are arrays, so that each statement
has one text and one plan, however many rows it is about.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    String,
    TableValuedAlias,
    Update,
    any_,
    bindparam,
    case,
    column,
    delete,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.types import BigInteger, LargeBinary

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import CARRIED, constant, given, in_state
from taskqueue.drivers.tables import Id, counters, history, jobs, lanes, queues, rollups, tags
from taskqueue.drivers.values import ClaimedJob

_MINUTE = 60_000_000


def _listed(name: str, fields: dict[str, Any]) -> TableValuedAlias:
    """Return arrays as a table; its parameters are named after its columns, with an ``s`` behind."""
    arrays = [bindparam(f"{each}s", type_=ARRAY(kind)) for each, kind in fields.items()]
    columns = [column(each, kind) for each, kind in fields.items()]
    return func.unnest(*arrays).table_valued(*columns, name=name).render_derived(name=name)


def _array(statement: Select[Any]) -> ColumnElement[Any]:
    return any_(func.array(statement.scalar_subquery()))


# --- completions ------------------------------------------------------------------------------------------------------

ACKNOWLEDGED: dict[str, Any] = {
    "id": Id(),
    "lease": Integer(),
    "finished_at": BigInteger(),
    "run_us": BigInteger(),
    "wait_us": BigInteger(),
    "result": LargeBinary(),
}


def _acknowledge() -> Any:
    done = _listed("done", ACKNOWLEDGED)
    keeping = select(queues.c.queue).where(queues.c.keep_payload == constant(1))
    carried = [jobs.c[name] for name in CARRIED if name not in ("checkpoint", "state", "started_at")]
    gone = (
        delete(jobs)
        .where(
            # As an array of one this is no condition to merge by. With a plain equality, a plan that was made while
            # the statistics knew of no rows read the whole index for each batch.
            jobs.c.id == any_(array([done.c.id])),
            jobs.c.lease == done.c.lease,
            # The sum keeps the state from choosing the index: the primary key finds each row.
            jobs.c.state + constant(0) == constant(tables.PROCESSING),
        )
        .returning(
            *carried,
            constant(tables.COMPLETED).label("state"),
            (done.c.finished_at - done.c.run_us).label("started_at"),
            case((jobs.c.queue == _array(keeping), jobs.c.payload)).label("payload"),
            done.c.finished_at,
            done.c.run_us,
            done.c.wait_us,
            done.c.result,
            jobs.c.has_dependents,
        )
        .cte("gone")
    )
    copied = [gone.c[each.name] for each in history.c if each.name in gone.c]
    noted = insert(history).from_select([each.name for each in copied], select(*copied), include_defaults=False)
    return (
        select(gone.c.id, gone.c.lease, gone.c.has_dependents)
        .add_cte(noted.cte("noted"))
        .add_cte(_counted(gone).cte("counted"))
        .add_cte(_rolled_up(gone).cte("rolled_up"))
    )


def _counted(gone: Any) -> Any:
    added = select(
        gone.c.queue,
        constant(tables.COMPLETED),
        given(counters, "node_id", "node"),
        func.count(),
    ).group_by(gone.c.queue)
    statement = insert_or(counters).from_select(["queue", "state", "node_id", "jobs"], added, include_defaults=False)
    return statement.on_conflict_do_update(
        index_elements=["queue", "state", "node_id"],
        set_={"jobs": counters.c.jobs + statement.excluded.jobs},
    )


def _rolled_up(gone: Any) -> Any:
    minute = gone.c.finished_at - gone.c.finished_at % constant(_MINUTE)
    sums = {
        "completed": func.count(),
        "run_us": func.sum(gone.c.run_us).cast(BigInteger),
        "run_us_most": func.max(gone.c.run_us),
        "wait_us": func.sum(gone.c.wait_us).cast(BigInteger),
        "wait_us_most": func.max(gone.c.wait_us),
    }
    added = select(minute, gone.c.queue, given(rollups, "node_id", "node"), *sums.values()).group_by(
        minute, gone.c.queue
    )
    statement = insert_or(rollups).from_select(["minute", "queue", "node_id", *sums], added, include_defaults=False)
    fresh = statement.excluded
    changes = {
        name: func.greatest(rollups.c[name], fresh[name]) if name.endswith("_most") else rollups.c[name] + fresh[name]
        for name in sums
    }
    return statement.on_conflict_do_update(index_elements=["minute", "queue", "node_id"], set_=changes)


ACKNOWLEDGE = _acknowledge()
"""Move completed jobs that are held under their lease into history and count them; return (id, lease, has_dependents).

What is not returned is stale. Children are released by a later statement: this one reads edges as they were before it
waited for the locks.
"""

LOCK_HELD = (
    select(jobs.c.id, jobs.c.lease, jobs.c.has_dependents)
    .where(
        jobs.c.id == any_(bindparam("ids", type_=ARRAY(Id()))),
        jobs.c.state + constant(0) == constant(tables.PROCESSING),
    )
    .order_by(jobs.c.id)
    .with_for_update()
)
"""Lock running jobs in the order of their ids, so that what is found of them holds until the end of the transaction."""

# --- claims -----------------------------------------------------------------------------------------------------------

_MARKS: dict[str, Any] = {"queue": String(), "rank": Integer(), "low": BigInteger(), "turn": BigInteger()}


def _claim(*, named: bool) -> Update:
    marks = _listed("mark", _MARKS)
    paused = select(queues.c.queue).where(queues.c.queue == lanes.c.queue, queues.c.paused_at.is_not(None)).exists()
    known = lanes.outerjoin(marks, (marks.c.queue == lanes.c.queue) & (marks.c.rank == lanes.c.rank))
    order: list[ColumnElement[Any]]
    if named:
        served = (
            func.unnest(bindparam("served", type_=ARRAY(String())))
            .table_valued(column("queue", String()), with_ordinality="place", name="served")
            .render_derived(name="served")
        )
        known = known.join(served, served.c.queue == lanes.c.queue)
        order = [served.c.place, lanes.c.rank]
    else:
        order = [lanes.c.rank, func.coalesce(marks.c.turn, constant(0)), lanes.c.queue.collate("C")]
    lane = (
        select(lanes.c.queue, lanes.c.rank, func.coalesce(marks.c.low, constant(0)).label("low"))
        .select_from(known)
        .where(~paused)
        .order_by(*order)
        .offset(constant(0))
        .subquery("lane")
    )
    head = (
        select(jobs.c.id)
        .where(
            jobs.c.queue == lane.c.queue,
            jobs.c.rank == lane.c.rank,
            in_state(jobs, tables.PENDING),
            jobs.c.ready_at >= lane.c.low,
        )
        .order_by(jobs.c.ready_at, jobs.c.id)
        .limit(bindparam("limit", type_=BigInteger))
        .with_for_update(skip_locked=True)
        .correlate(lane)
        .lateral("head")
    )
    taken = select(head.c.id).select_from(lane.join(head, true())).limit(bindparam("limit", type_=BigInteger))
    return (
        update(jobs)
        .where(jobs.c.id == _array(taken.correlate(None)))
        .values(
            {
                jobs.c.state: constant(tables.PROCESSING),
                jobs.c.lease: jobs.c.lease + constant(1),
                jobs.c.attempt: jobs.c.attempt + constant(1),
                jobs.c.node_id: given(jobs, "node_id", "node"),
                jobs.c.claimed_at: given(jobs, "claimed_at", "now"),
            }
        )
        .returning(*[jobs.c[name] for name in ClaimedJob._fields])
    )


CLAIM_ALL = _claim(named=False)
"""Claim by priority over all queues; of lanes with equal rank the one that was served longest ago comes first.

The lanes are walked in order and no further than the limit needs, so no row is locked that is not taken. Rows are
returned in no order.
"""

CLAIM_NAMED = _claim(named=True)
"""Claim from the queues in ``served``, strictly in their order."""

# --- pushes -----------------------------------------------------------------------------------------------------------

_ids = bindparam("ids", type_=ARRAY(Id()))
KNOWN = (
    select(jobs.c.id).where(jobs.c.id == any_(_ids)).union_all(select(history.c.id).where(history.c.id == any_(_ids)))
)
"""Which of these jobs are stored already, live or finished."""

_new_lanes = _listed("new", {"queue": String(), "rank": Integer()})
INSERT_LANES = (
    insert_or(lanes)
    .from_select(["queue", "rank"], select(_new_lanes.c.queue, _new_lanes.c.rank), include_defaults=False)
    .on_conflict_do_nothing(index_elements=["queue", "rank"])
)
"""Note lanes unless they are known."""

_new_tags = _listed("new", {"tag": String(), "job_id": Id()})
INSERT_TAGS = (
    insert_or(tags)
    .from_select(["tag", "job_id"], select(_new_tags.c.tag, _new_tags.c.job_id), include_defaults=False)
    .on_conflict_do_nothing(index_elements=["tag", "job_id"])
)
"""Note tags of jobs unless they are known."""

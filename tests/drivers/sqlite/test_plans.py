"""How SQLite goes about the hot statements: an index that is missed turns microseconds into seconds."""

from __future__ import annotations

import pytest

from taskqueue.drivers.prepared import Prepared, PreparedBatch
from taskqueue.drivers.sqlite import SQLiteDriver
from taskqueue.drivers.statements import claiming, control, finishing, nodes, pushing, reading, waiting
from taskqueue.drivers.values import JobFilter
from taskqueue.states import State
from tests.drivers.world import World

PRIMARY = "SEARCH tq_jobs USING INDEX sqlite_autoindex_tq_jobs_1 (id=?)"


def plan(driver: SQLiteDriver, statement: object, *, prepared: bool = True) -> str:
    """Return the steps of a statement, one a line."""
    dialect = driver.engine.dialect
    if prepared:
        compiled = Prepared(statement, dialect)  # type: ignore[arg-type]
        sql, count = compiled.sql, len(compiled.names)
    else:
        text = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
        sql, count = str(text), len(text.positiontup or ())
    with driver._connections.use() as kept:
        rows = kept.raw.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * count).fetchall()
    return "\n".join(row[3] for row in rows)


@pytest.fixture(params=["empty", "filled", "analyzed"])
def filled(request: pytest.FixtureRequest, sqlite: SQLiteDriver, world: World, node: int) -> SQLiteDriver:
    """Return a driver with nothing in it, or with 10,000 foreign rows in 200 lanes, with and without statistics."""
    if request.param != "empty":
        jobs = [world.job(queue=f"foreign{number % 100}", rank=number % 2) for number in range(10_000)]
        sqlite.push_many(jobs)
        sqlite.push_many([world.job(queue="served") for _ in range(50)])
        world.claim(node, 20)
    if request.param == "analyzed":
        sqlite.write(lambda connection: connection.exec_driver_sql("ANALYZE"))
    return sqlite


@pytest.mark.parametrize("statement", [claiming.HEAD, claiming.CLAIM_HEAD], ids=["head", "claim"])
def test_a_claim_reads_its_lane_in_order(filled: SQLiteDriver, statement: object) -> None:
    steps = plan(filled, statement)

    assert "tq_jobs_claim (queue=? AND rank=? AND ready_at>?)" in steps
    assert "TEMP B-TREE" not in steps
    assert "SCAN tq_jobs" not in steps


@pytest.mark.parametrize("statement", [claiming.LANES_WITH_WORK, claiming.LANES_OF_QUEUE_WITH_WORK])
def test_a_lane_is_asked_for_work_in_the_index_of_the_claim(filled: SQLiteDriver, statement: object) -> None:
    steps = plan(filled, statement)

    assert "SEARCH tq_jobs USING INDEX tq_jobs_claim (queue=? AND rank=?)" in steps
    assert "SCAN tq_jobs" not in steps


@pytest.mark.parametrize("rows", [1, 8, 32, 128])
def test_completed_jobs_are_found_by_their_ids(filled: SQLiteDriver, rows: int) -> None:
    assert PRIMARY in plan(filled, finishing.complete(rows))
    assert PRIMARY in plan(filled, finishing.complete(rows, keeping_payload=True))
    assert PRIMARY in plan(filled, finishing.remove(rows))


@pytest.mark.parametrize(
    "statement",
    [finishing.END, finishing.REMOVE, finishing.HAND_BACK, finishing.NOTE_ATTEMPT, finishing.RECORD_START],
    ids=["end", "remove", "hand back", "attempt", "start"],
)
def test_a_claimed_job_is_found_by_its_id(filled: SQLiteDriver, statement: object) -> None:
    assert plan(filled, statement) == PRIMARY


@pytest.mark.parametrize("length", PreparedBatch.LENGTHS)
def test_the_texts_of_batches_are_the_ones_that_would_be_compiled(sqlite: SQLiteDriver, length: int) -> None:
    dialect = sqlite.engine.dialect
    finisher = sqlite._finisher

    assert sqlite._insert_jobs.text(length) == Prepared(pushing.insert_jobs(length, "sqlite"), dialect).sql
    assert finisher._complete.text(length) == Prepared(finishing.complete(length), dialect).sql
    assert finisher._remove_all.text(length) == Prepared(finishing.remove(length), dialect).sql


def test_a_repeated_push_is_noticed_in_the_primary_key_of_history(filled: SQLiteDriver) -> None:
    for statement in (pushing.insert_job("sqlite"), pushing.insert_jobs(32, "sqlite")):
        steps = plan(filled, statement)
        assert "SEARCH tq_history USING COVERING INDEX sqlite_autoindex_tq_history_1 (id=?)" in steps


def test_due_jobs_are_read_in_the_order_of_their_time(filled: SQLiteDriver) -> None:
    steps = plan(filled, waiting.DUE)

    assert "tq_jobs_delayed (run_at" in steps
    assert "TEMP B-TREE" not in steps
    assert "tq_jobs_delayed" in plan(filled, waiting.NEXT_RUN_AT)


def test_orphans_are_found_among_the_processing_alone(filled: SQLiteDriver) -> None:
    assert "tq_jobs_processing" in plan(filled, nodes.ORPHANED, prepared=False)
    assert "tq_jobs_processing (node_id=?)" in plan(filled, nodes.JOBS_OF_NODE)


def test_parked_jobs_are_found_among_the_blocked_alone(filled: SQLiteDriver) -> None:
    assert "tq_jobs_blocked" in plan(filled, waiting.unpark(["app.Work"], ["k"], 1), prepared=False)


def test_counting_queues_reads_neither_live_rows_nor_history(filled: SQLiteDriver) -> None:
    steps = plan(filled, reading.QUEUES)

    for index in ("claim", "processing", "delayed", "blocked"):
        assert f"SCAN tq_jobs USING INDEX tq_jobs_{index}" in steps
    assert "tq_history" not in steps
    assert "SCAN tq_jobs\n" not in steps


def test_a_page_of_jobs_is_read_by_ids_and_the_rows_are_fetched_for_those_alone(filled: SQLiteDriver) -> None:
    for which in (JobFilter(), JobFilter(states=[State.FAILED]), JobFilter(states=[State.PENDING], queues=["served"])):
        steps = plan(filled, reading.find(which, 100), prepared=False)
        assert "SCAN tq_jobs\n" not in steps
        assert "SCAN tq_history\n" not in steps
        assert "SEARCH tq_jobs USING INDEX sqlite_autoindex_tq_jobs_1 (id=?)" in steps
        assert "SEARCH tq_history USING INDEX sqlite_autoindex_tq_history_1 (id=?)" in steps


def test_jobs_that_are_asked_for_by_id_are_found_by_id(filled: SQLiteDriver) -> None:
    by_id = JobFilter(ids=[b"?" * 16])
    for statement in (reading.find(by_id, 100), control.waiting(by_id), control.finished(by_id)):
        assert "(id=?)" in plan(filled, statement, prepared=False)

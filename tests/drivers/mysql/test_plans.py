"""How the server goes about the hot statements: an index that is missed turns microseconds into seconds."""

from __future__ import annotations

from typing import Any

import pytest

from taskqueue.drivers.mysql import MySQLDriver
from taskqueue.drivers.mysql_texts import Texts
from taskqueue.drivers.values import Completion, Lanes
from tests.drivers.world import World


@pytest.fixture(params=["empty", "filled", "analyzed"])
def filled(request: pytest.FixtureRequest, mysql: MySQLDriver, world: World, node: int) -> MySQLDriver:
    """Return a driver with nothing in it, or with 5,000 foreign rows in 20 lanes, with and without statistics."""
    if request.param != "empty":
        mysql.push_many([world.job(queue=f"foreign{number % 10}", rank=number % 2) for number in range(5000)])
        mysql.push_many([world.job(queue="served") for _ in range(500)])
        world.claim(node, 20)
    if request.param == "analyzed":
        mysql.read(lambda connection: connection.exec_driver_sql("ANALYZE TABLE tq_jobs").all())
    return mysql


@pytest.fixture
def texts(filled: MySQLDriver) -> Texts:
    with filled._connections.use() as kept:
        return filled._statements(kept)


def plan(driver: MySQLDriver, text: str) -> list[dict[str, Any]]:
    """Return the steps of a statement."""
    with driver._connections.use() as kept, kept.raw.cursor() as cursor:
        cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {text}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_a_claim_reads_its_lane_in_the_order_of_the_index_and_sorts_nothing(filled: MySQLDriver, texts: Texts) -> None:
    (step,) = plan(filled, texts.head(("served", 0), 5, 100))

    assert (step["key"], step["type"]) == ("tq_jobs_claim_full", "range")
    assert "filesort" not in (step["Extra"] or "")
    assert "temporary" not in (step["Extra"] or "")


@pytest.mark.parametrize("lanes", [Lanes(None), Lanes(("served", "q"), {("served", 0): 7})])
def test_a_lane_is_asked_for_work_by_one_look_into_the_index_of_the_claim(
    filled: MySQLDriver, texts: Texts, lanes: Lanes
) -> None:
    (step,) = [step for step in plan(filled, texts.lanes(lanes)) if step["table"] == "tq_jobs"]

    assert step["select_type"] == "DEPENDENT SUBQUERY"
    assert (step["key"], step["type"]) == ("tq_jobs_claim_full", "ref")
    assert step["ref"].count(",") == 2


def test_completed_jobs_are_found_by_their_ids_in_the_order_of_the_list(filled: MySQLDriver, texts: Texts) -> None:
    done = [Completion(bytes([number]) * 16, 1, "q", 1, 1, 1, None) for number in range(50)]
    (text,) = texts.complete(done, 1_000_000, keeping_payload=False)

    steps = [step for step in plan(filled, text) if step["table"] in ("tq_jobs", "<derived2>", "done")]

    assert steps[-1]["table"] == "tq_jobs"
    assert (steps[-1]["key"], steps[-1]["type"]) == ("PRIMARY", "eq_ref")


@pytest.mark.parametrize("verb", ["claim", "remove"])
def test_rows_are_touched_by_their_primary_key(filled: MySQLDriver, texts: Texts, world: World, verb: str) -> None:
    ids = [row.id for row in world.everything()[:20]] or [bytes(16)]
    text = texts.remove(ids) if verb == "remove" else texts.claim([(each,) for each in ids], 1, 2)

    steps = plan(filled, text)

    assert {step["key"] for step in steps} <= {"PRIMARY", None}
    assert sum(int(step["rows"] or 0) for step in steps) <= len(ids)

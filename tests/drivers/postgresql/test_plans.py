"""How the server goes about the statements of the driver, whatever its statistics say about the tables.

Plans of hot statements are made when they are first run and kept: on empty tables, on tables that were emptied, on
statistics from another day. The driver runs its verbs, the server notes each plan it takes with the rows it looked at
(``auto_explain``), and every one of them has to reach its rows by a condition of an index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import event, make_url

from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.values import ClaimedJob, Ending, JobChanges, JobFilter
from taskqueue.ids import new_id
from taskqueue.states import FINAL, OnConflict, State, Verb
from tests.databases import Database
from tests.drivers.world import MINUTE, SECOND, MovableClock, World

ROWS = 6_000
"""How many foreign jobs there are in each crowd."""

FEW = 12
"""Of how many jobs each verb is about."""

MOST_TOUCHED = 400
"""How many rows one step may look at: far more than the few, far fewer than a crowd."""

SHOWN = 300

WATCHED = ("tq_jobs", "tq_history", "tq_dependencies")
BOUNDED = {"tq_jobs_processing", "tq_jobs_delayed", "tq_jobs_blocked", "tq_jobs_claim"}
"""Indexes of one state: who counts that state may read the whole of it."""

OPTIONS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_level": "notice",
    "auto_explain.log_format": "json",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
}

Step = Mapping[str, Any]


def steps(plan: Any) -> Iterator[Step]:
    """Yield each step of a plan."""
    if isinstance(plan, list):
        for each in plan:
            yield from steps(each)
    elif isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        for each in plan.values():
            yield from steps(each)


def touched(step: Step) -> float:
    """Return how many rows a step looked at."""
    each = step.get("Actual Rows", 0) + sum(value for name, value in step.items() if name.startswith("Rows Removed"))
    return float(each * step.get("Actual Loops", 1))


def is_read_whole(step: Step) -> bool:
    """Say whether a step goes through all of a table or index that grows with the jobs."""
    kind = step["Node Type"]
    index = str(step.get("Index Name", ""))
    if kind == "Seq Scan":
        return step["Relation Name"] in WATCHED
    if "Index" not in kind or not index.startswith(WATCHED):
        return False
    return "Index Cond" not in step


@dataclass
class Plans:
    """What the server said about the statements of the driver."""

    said: list[tuple[str, Any]] = field(default_factory=list)

    def note(self, diagnostic: Any) -> None:
        head, _, rest = (diagnostic.message_primary or "").partition("plan:\n")
        if rest and head.startswith("duration"):
            plan = json.loads(rest)
            self.said.append((plan["Query Text"], plan["Plan"]))

    def faults(self, *, counting: bool = False, ordered: bool = False) -> list[str]:
        """Return what is wrong with the plans since the last look."""
        said, self.said = self.said, []
        assert said
        faults = []
        for sql, plan in said:
            for step in steps(plan):
                allowed = ordered or (counting and step.get("Index Name") in BOUNDED)
                if (is_read_whole(step) and not allowed) or (touched(step) > MOST_TOUCHED and not counting):
                    shown = [step.get(name) for name in ("Node Type", "Index Name", "Filter", "Join Filter")]
                    faults.append(f"{touched(step):,.0f} rows by {shown} in {' '.join(sql.split())[:SHOWN]}")
        return faults


@pytest.fixture
def plans() -> Plans:
    return Plans()


@pytest.fixture
def driver(url: str, clock: MovableClock, plans: Plans) -> Iterator[Driver]:
    """Return a driver whose server tells how it goes about each statement."""
    options = " ".join(f"-c {name}={value}" for name, value in OPTIONS.items())
    opened = open_driver(
        make_url(url).update_query_dict({"options": options}).render_as_string(hide_password=False), clock=clock
    )
    assert isinstance(opened, SQLDriver)
    event.listen(opened.engine, "connect", lambda raw, _record: raw.add_notice_handler(plans.note))
    yield opened
    opened.close()


# --- states of the statistics -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def left_alone(database: Database) -> Iterator[None]:
    """Keep everybody else from analyzing the tables."""
    for name in WATCHED:
        database.run(f"TRUNCATE {name}", f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
    yield
    for name in WATCHED:
        database.run(f"TRUNCATE {name}", f"ALTER TABLE {name} RESET (autovacuum_enabled)")


def run_alone(database: Database, *statements: str) -> None:
    """Run statements outside of a transaction."""
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for each in statements:
            connection.exec_driver_sql(each)


def crowd(database: Database, **states: int) -> None:
    """Insert foreign jobs; some stand before and some behind everybody else's, by id and by time."""
    for state, rows in states.items():
        if state in ("completed", "failed"):
            database.run(
                "INSERT INTO tq_history (id, queue, rank, job_class, state, created_at, ready_at, max_attempts, key_id,"
                " finished_at, lease) SELECT gen_random_uuid(), 'crowd' || i % 3, 0, 'app.Work',"
                f" {State(state).code}, i, i, 3, 'k', i, 1 FROM generate_series(1, {rows}) i",
            )
            continue
        database.run(
            f"INSERT INTO tq_dependencies SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, {rows})",
            "INSERT INTO tq_jobs (id, queue, rank, job_class, state, created_at, ready_at, run_at, max_attempts,"
            " key_id, payload, unique_key, node_id, lease) SELECT gen_random_uuid(), 'crowd' || i % 3, 0, 'app.Work',"
            f" {State(state).code}, i, 9e15 + i, 9e15 + i, 3, 'k', '\\x00', decode(md5(random()::text), 'hex'), 999, 1"
            f" FROM generate_series(1, {rows}) i",
        )


CROWD = {"pending": ROWS, "processing": ROWS, "delayed": ROWS, "blocked": ROWS // 3, "completed": ROWS, "failed": ROWS}


def never_analyzed(_database: Database) -> None:
    """Leave the tables as they were made."""


def emptied(database: Database) -> None:
    crowd(database, **CROWD)
    for name in WATCHED:
        run_alone(database, f"DELETE FROM {name}", f"VACUUM (TRUNCATE FALSE) {name}", f"ANALYZE {name}")


def emptied_but_not_analyzed(database: Database) -> None:
    crowd(database, **CROWD)
    for name in WATCHED:
        run_alone(database, f"DELETE FROM {name}", f"VACUUM (TRUNCATE FALSE) {name}")


def large(database: Database) -> None:
    crowd(database, **CROWD)
    run_alone(database, "ANALYZE")


def mostly_processing(database: Database) -> None:
    crowd(database, processing=3 * ROWS, completed=FEW)
    run_alone(database, "ANALYZE")


def small(database: Database) -> None:
    crowd(database, pending=3, processing=3, delayed=3, blocked=3, completed=3, failed=3)
    run_alone(database, "ANALYZE")


def only_finished(database: Database) -> None:
    crowd(database, completed=3 * ROWS)
    run_alone(database, "ANALYZE")


STATES = (never_analyzed, emptied, emptied_but_not_analyzed, small, large, mostly_processing, only_finished)


# --- the verbs --------------------------------------------------------------------------------------------------------


@dataclass
class Tour:
    """Every verb that nodes and pushes repeat, each on a few jobs of its own."""

    world: World
    node: int
    rounds: int = 0

    @property
    def driver(self) -> Driver:
        return self.world.driver

    def jobs(self, **values: Any) -> list[bytes]:
        made = [self.world.job(**values) for _ in range(FEW)]
        self.driver.push_many(made)
        return [each.id for each in made]

    def claimed(self, **values: Any) -> list[ClaimedJob]:
        self.jobs(queue="mine", **values)
        return self.world.claim(self.node, FEW, ["mine"])

    def ended(self, verb: Verb, **values: Any) -> None:
        ends = [
            Ending(each.id, each.lease, each.queue, verb, self.world.clock.now_us())._replace(**values)
            for each in self.claimed()
        ]
        assert not self.driver.cycle(self.node, (), ends, self.driver.lanes(None), 0).stale

    # Each of these is a verb.

    def push(self) -> None:
        self.world.push()
        self.world.push()

    def push_tagged(self) -> None:
        self.world.push(["a", "b"], queue="tagged")

    def push_many_again(self) -> None:
        made = [self.world.job() for _ in range(FEW)]
        self.driver.push_many(made)
        self.driver.push_many(made)

    def push_unique(self) -> None:
        key = new_id().bytes
        for replace in (False, False, True):
            self.driver.push_unique(self.world.job(unique_key=key), replace=replace)

    def push_each(self) -> None:
        made = [self.world.job() for _ in range(FEW)]
        self.driver.push_each(made, (), (), [OnConflict.KEEP] * FEW)

    def push_family(self) -> None:
        parents = self.jobs()
        self.driver.push_many([self.world.job() for _ in parents], (), [parents] * FEW)

    def claim_all(self) -> None:
        self.jobs(rank=-1)
        assert len(self.world.claim(self.node, FEW)) == FEW

    def claim_named(self) -> None:
        assert len(self.claimed()) == FEW

    def claim_nothing(self) -> None:
        assert not self.world.claim(self.node, FEW, ["nobody's"])

    def acknowledge(self) -> None:
        assert not self.world.complete(self.node, *self.claimed()).stale

    def acknowledge_parents(self) -> None:
        parents = self.claimed()
        self.driver.push_many([self.world.job() for _ in parents], (), [[each.id] for each in parents])
        assert not self.world.complete(self.node, *parents).stale

    def acknowledge_stale(self) -> None:
        jobs = self.claimed()
        self.world.complete(self.node, *jobs)
        assert len(self.world.complete(self.node, *jobs).stale) == FEW

    def retry(self) -> None:
        self.ended(Verb.RETRY, run_at=self.world.clock.now_us() + MINUTE)

    def fail(self) -> None:
        self.ended(Verb.FAIL)

    def fail_parents(self) -> None:
        parents = self.claimed()
        self.driver.push_many([self.world.job() for _ in parents], (), [[each.id] for each in parents])
        for each in parents:
            self.world.end(self.node, each, Verb.FAIL)

    def release(self) -> None:
        self.ended(Verb.RELEASE)

    def record_start(self) -> None:
        for each in self.claimed(delivery=1):
            assert self.driver.record_start(self.node, each.id, each.lease)

    def held(self) -> None:
        jobs = self.claimed()
        assert {each.id for each in jobs} <= {each.id for each in self.driver.held(self.node)}

    def beat(self) -> None:
        assert self.driver.beat(self.node)

    def promote(self) -> None:
        for _ in range(FEW):
            self.world.delayed(1)
        self.world.clock.advance(2)
        assert self.driver.promote().promoted == FEW

    def rescue(self) -> None:
        other = self.world.node()
        self.jobs(queue="theirs")
        assert self.world.claim(other, FEW, ["theirs"])
        self.world.kill(other)
        assert self.driver.rescue(other).pending == FEW

    def purge(self) -> None:
        self.world.complete(self.node, *self.claimed())
        assert self.driver.purge(self.world.clock.now_us() + 1, FINAL, "mine", FEW) == FEW

    def purge_beyond(self) -> None:
        self.world.complete(self.node, *self.claimed())
        self.driver.purge_beyond(3, "mine", FEW)

    def sweep(self) -> None:
        self.driver.sweep(0, self.world.clock.now_us() + SECOND)

    def look(self) -> None:
        ids = self.jobs()
        for each in ids:
            assert self.driver.get(each)
        assert len(self.driver.states(ids)) == FEW
        self.driver.attempts(ids)

    def find(self) -> None:
        ids = self.jobs(queue="found")
        assert len(self.driver.find(JobFilter(ids=ids))) == FEW
        assert len(self.driver.find(JobFilter(), FEW)) == FEW

    def change(self) -> None:
        ids = self.jobs(queue="changed")
        assert self.driver.update(ids[0], JobChanges(rank=3))
        assert self.driver.cancel(JobFilter(ids=ids[:6]))
        assert self.driver.revive(JobFilter(ids=ids[:6]))
        assert self.driver.delete(JobFilter(ids=ids)) == FEW


TOUR: Sequence[Callable[[Tour], None]] = [
    each
    for name, each in vars(Tour).items()
    if callable(each) and name[0] != "_" and name not in ("jobs", "claimed", "ended")
]


ORDERED = {Tour.find, Tour.promote}
"""Verbs that read the end of an index, for as many rows as they need."""


def count_everything(driver: Driver) -> None:
    driver.unfinished(None)
    driver.unfinished(["q"])
    driver.queues()
    driver.orphaned_nodes()
    driver.restore_lanes()


@pytest.mark.parametrize("statistics", STATES, ids=lambda each: each.__name__)
def test_every_repeated_statement_reaches_its_rows_by_a_condition_of_an_index(
    statistics: Callable[[Database], None], driver: Driver, world: World, node: int, database: Database, plans: Plans
) -> None:
    statistics(database)
    tour = Tour(world, node)
    faults: list[str] = []
    for tour.rounds in range(2):  # The plans of the first round are kept in the second, when the tables have grown.
        for verb in TOUR:
            plans.said.clear()
            verb(tour)
            faults += [f"{tour.rounds} {verb.__name__}: {each}" for each in plans.faults(ordered=verb in ORDERED)]
        plans.said.clear()
        count_everything(driver)
        faults += [f"{tour.rounds} counting: {each}" for each in plans.faults(counting=True)]
        crowd(database, **CROWD) if not tour.rounds else None
    assert not faults, "\n".join(faults)

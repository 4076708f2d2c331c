"""A job acknowledged in its handler's own transaction: the effect and the acknowledgement, both or neither."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from taskqueue.drivers import open_driver
from taskqueue.drivers.receipts import Fate, HandlerTransaction, Receipt, Setback
from taskqueue.drivers.values import ClaimedJob
from taskqueue.errors import ConfigurationError, UsageError
from taskqueue.states import State, Verb
from tests.databases import Database
from tests.drivers.world import World

EFFECT = text("INSERT INTO effects (job) VALUES (:job)")
SECONDS = 30.0


@pytest.fixture(autouse=True)
def effects(database: Database) -> Iterator[None]:
    """Give the user a table beside ours."""
    database.run("CREATE TABLE effects (number INTEGER, job CHAR(32))")
    yield
    with database.engine.connect() as connection:
        database.server.end_others(connection)
    database.run("DROP TABLE effects")


@pytest.fixture
def claimed(world: World, node: int) -> ClaimedJob:
    world.push()
    return world.claim_one(node)


def effect(session: Session, job: ClaimedJob) -> None:
    session.execute(EFFECT, {"job": job.id.hex()})


def count(database: Database) -> int:
    ((found,),) = database.rows("SELECT count(*) FROM effects")
    return int(found)


def run(world: World, job: ClaimedJob, handle: object = effect) -> Receipt | None:
    """Do as a worker does, and return the receipt of what was committed."""
    with world.driver.transaction(SECONDS) as transaction:
        handle(transaction.session(), job)  # type: ignore[operator]
        receipt = transaction.acknowledge(world.completion(job))
        if receipt is not None:
            assert transaction.commit()
        return receipt


# --- both or neither ---------------------------------------------------------------------------------------------


def test_the_effect_and_the_acknowledgement_are_committed_together(
    world: World, database: Database, claimed: ClaimedJob
) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        effect(transaction.session(), claimed)
        assert transaction.acknowledge(world.completion(claimed)) == Receipt(released=False)
        assert (count(database), world.state(claimed.id)) == (0, State.PROCESSING)
        assert transaction.commit()

    assert (count(database), world.state(claimed.id)) == (1, State.COMPLETED)


def test_a_job_completed_so_looks_like_any_other(world: World, node: int, claimed: ClaimedJob) -> None:
    other = world.push()
    world.complete(node, world.claim_one(node))
    run(world, claimed)

    mine, ordinary = world.row(claimed.id), world.row(other)
    for name in ("state", "lease", "node_id", "attempt", "run_us", "started_at", "finished_at", "result", "payload"):
        assert getattr(mine, name) == getattr(ordinary, name), name
    assert world.counts_are_exact()
    (minute,) = world.driver.rollups(0)
    assert (minute.completed, minute.run_us, minute.wait_us) == (2, 1000, 40)


def test_a_job_without_a_result_completes(world: World, claimed: ClaimedJob) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        transaction.acknowledge(world.completion(claimed, result=None))
        transaction.commit()

    assert world.row(claimed.id).result is None


def test_the_payload_is_kept_where_the_queue_keeps_payloads(
    world: World, database: Database, claimed: ClaimedJob
) -> None:
    database.run("INSERT INTO tq_queues (queue, keep_payload) VALUES ('q', 1)")
    run(world, claimed)

    assert world.row(claimed.id).payload == b"sealed"


def test_without_a_commit_nothing_has_happened(world: World, database: Database, claimed: ClaimedJob) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        effect(transaction.session(), claimed)
        transaction.acknowledge(world.completion(claimed))

    assert (count(database), world.state(claimed.id)) == (0, State.PROCESSING)
    assert world.counts_are_exact()


def test_a_handler_without_a_statement_completes(world: World, claimed: ClaimedJob) -> None:
    assert run(world, claimed, lambda _session, _job: None) is not None
    assert world.state(claimed.id) is State.COMPLETED


@pytest.mark.parametrize("commits", [True, False])
def test_a_wrong_lease_leaves_no_effect(world: World, database: Database, claimed: ClaimedJob, commits: bool) -> None:
    def handle(session: Session, job: ClaimedJob) -> None:
        effect(session, job)
        if commits:
            session.commit()

    assert run(world, claimed._replace(lease=claimed.lease - 1), handle) is None
    assert (count(database), world.state(claimed.id)) == (0, State.PROCESSING)


def test_a_job_that_another_node_took_over_meanwhile_leaves_no_effect(
    world: World, database: Database, node: int, url: str
) -> None:
    job_id = world.push()
    first = world.claim_one(node)
    other = open_driver(url)

    def late(session: Session, job: ClaimedJob) -> None:
        if not other.capabilities.concurrent_writers:
            world.kill(node)  # A transaction that has written would keep the rescue waiting until it ends.
            other.rescue(node)
            effect(session, job)
        else:
            effect(session, job)
            world.kill(node)
            other.rescue(node)
        session.commit()

    assert run(world, first, late) is None
    assert (count(database), world.state(job_id)) == (0, State.PENDING)
    assert run(world, world.claim_one(world.node())) is not None
    assert (count(database), world.state(job_id)) == (1, State.COMPLETED)
    other.close()


def test_a_job_is_not_acknowledged_twice(world: World, database: Database, claimed: ClaimedJob) -> None:
    assert run(world, claimed) is not None
    assert run(world, claimed) is None
    assert count(database) == 1


def test_what_a_node_writes_later_about_the_job_is_stale(world: World, node: int, claimed: ClaimedJob) -> None:
    run(world, claimed)

    assert len(world.end(node, claimed, Verb.RETRY)) == 1
    assert len(world.complete(node, claimed).stale) == 1
    assert world.state(claimed.id) is State.COMPLETED


# --- what a session may do ----------------------------------------------------------------------------------------


def test_a_commit_of_the_handler_commits_nothing_by_itself(
    world: World, database: Database, claimed: ClaimedJob
) -> None:
    with contextlib.suppress(RuntimeError), world.driver.transaction(SECONDS) as transaction:
        session = transaction.session()
        for _ in range(2):
            effect(session, claimed)
            session.commit()
        assert count(database) == 0
        raise RuntimeError

    assert (count(database), world.state(claimed.id)) == (0, State.PROCESSING)


def test_a_roll_back_of_the_handler_undoes_its_effect_and_the_job_completes(
    world: World, database: Database, claimed: ClaimedJob
) -> None:
    def handle(session: Session, job: ClaimedJob) -> None:
        effect(session, job)
        session.commit()
        effect(session, job)
        session.rollback()

    assert run(world, claimed, handle) is not None
    assert (count(database), world.state(claimed.id)) == (1, State.COMPLETED)


def test_savepoints_and_errors_within_them_are_the_handlers_own_matter(
    world: World, database: Database, claimed: ClaimedJob
) -> None:
    def handle(session: Session, job: ClaimedJob) -> None:
        with contextlib.suppress(RuntimeError), session.begin_nested():
            effect(session, job)
            raise RuntimeError
        with pytest.raises(Exception, match="nowhere"), session.begin_nested():
            session.execute(text("SELECT 1 FROM nowhere"))
        effect(session, job)

    assert run(world, claimed, handle) is not None
    assert count(database) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_connection_itself_cannot_be_ended(world: World, database: Database, claimed: ClaimedJob, end: str) -> None:
    def handle(session: Session, job: ClaimedJob) -> None:
        effect(session, job)
        getattr(session.get_bind(), end)()

    with pytest.raises(UsageError, match="cannot commit or roll back its connection"):
        run(world, claimed, handle)
    assert (count(database), world.state(claimed.id)) == (0, State.PROCESSING)


@pytest.mark.parametrize("words", ["COMMIT", " rollback;", "BEGIN", "END"])
def test_a_text_that_would_end_the_transaction_is_refused(
    world: World, database: Database, claimed: ClaimedJob, words: str
) -> None:
    def handle(session: Session, job: ClaimedJob) -> None:
        effect(session, job)
        with pytest.raises(UsageError, match="cannot commit or roll back"):
            session.execute(text(words))

    assert run(world, claimed, handle) is not None
    assert count(database) == 1


@pytest.mark.parametrize("words", ["COMMIT", "ROLLBACK"])
def test_a_transaction_that_was_ended_in_disguise_is_not_acknowledged(
    world: World, claimed: ClaimedJob, words: str
) -> None:
    def handle(session: Session, job: ClaimedJob) -> None:
        effect(session, job)
        session.commit()
        with contextlib.suppress(Exception):
            session.connection().connection.cursor().execute(words)  # Behind SQLAlchemy's back.
        with contextlib.suppress(Exception):
            session.rollback()

    with pytest.raises(UsageError, match="was ended before"):
        run(world, claimed, handle)
    assert world.state(claimed.id) is State.PROCESSING
    assert world.counts_are_exact()


def test_a_statement_that_commits_by_itself_is_refused(world: World, database: Database, claimed: ClaimedJob) -> None:
    def handle(session: Session, job: ClaimedJob) -> None:
        effect(session, job)
        session.execute(text("CREATE TABLE more (number INTEGER)"))

    if world.driver.capabilities.transactional_ddl:
        with contextlib.suppress(RuntimeError), world.driver.transaction(SECONDS) as transaction:
            handle(transaction.session(), claimed)
            raise RuntimeError
    else:
        with pytest.raises(UsageError, match="cannot run CREATE here"):
            run(world, claimed, handle)
    assert count(database) == 0
    assert "more" not in database.tables()


def test_the_connection_is_as_before_after_each_kind_of_end(world: World, node: int, claimed: ClaimedJob) -> None:
    with contextlib.suppress(RuntimeError), world.driver.transaction(SECONDS):
        raise RuntimeError
    with contextlib.suppress(KeyboardInterrupt), world.driver.transaction(SECONDS) as transaction:
        effect(transaction.session(), claimed)
        raise KeyboardInterrupt
    with contextlib.suppress(Exception), world.driver.transaction(SECONDS) as transaction:
        transaction.session().execute(text("SELECT 1 FROM nowhere"))
    run(world, claimed)
    more = world.push()
    world.complete(node, world.claim_one(node))

    assert {world.state(each) for each in (claimed.id, more)} == {State.COMPLETED}
    assert world.counts_are_exact()


# --- sessions of the user's own making ----------------------------------------------------------------------------


class Own(Session):
    """A session of the user's."""


@pytest.mark.parametrize("factory", [Own, sessionmaker(class_=Own, autoflush=False)])
def test_a_factory_of_the_user_makes_the_session(
    world: World, database: Database, claimed: ClaimedJob, factory: type
) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        session = transaction.session(factory)
        assert isinstance(session, Own)
        effect(session, claimed)
        transaction.acknowledge(world.completion(claimed))
        transaction.commit()

    assert count(database) == 1


def test_a_session_that_is_bound_elsewhere_is_refused(world: World, database: Database) -> None:
    def elsewhere(**_given: object) -> Session:
        return Session(bind=database.engine)

    with world.driver.transaction(SECONDS) as transaction:
        for factory in (elsewhere, dict):
            with pytest.raises(ConfigurationError, match="session_factory must return"):
                transaction.session(factory)


# --- what goes with it --------------------------------------------------------------------------------------------


def test_children_of_the_job_start_with_its_commit(world: World, node: int, claimed: ClaimedJob) -> None:
    child = world.job()
    world.driver.push(child, (), [claimed.id])
    with world.driver.transaction(SECONDS) as transaction:
        assert transaction.acknowledge(world.completion(claimed)) == Receipt(released=True)
        assert world.state(child.id) is State.BLOCKED
        transaction.commit()

    assert world.claim_one(node).id == child.id


@pytest.mark.parametrize("commits", [True, False])
def test_a_push_within_it_goes_with_it(world: World, claimed: ClaimedJob, commits: bool) -> None:
    world.driver.installation()
    child = world.job(queue="new", unique_key=b"u" * 32)
    with world.driver.transaction(SECONDS) as transaction:
        world.driver.push_within(transaction.session(), [child], [["t"]], [[claimed.id]])
        transaction.acknowledge(world.completion(claimed))
        if commits:
            transaction.commit()

    assert world.state(child.id) is (State.PENDING if commits else None)


def test_the_unique_key_of_the_job_is_free_after_its_commit(world: World, node: int) -> None:
    first = world.push(unique_key=b"u" * 32)
    run(world, world.claim_one(node))
    second = world.push(unique_key=b"u" * 32)

    assert (world.state(first), world.state(second)) == (State.COMPLETED, State.PENDING)


@pytest.mark.needs("concurrent_writers")
def test_others_go_on_while_a_handler_runs(world: World, node: int, claimed: ClaimedJob, url: str) -> None:
    other = open_driver(url)
    with world.driver.transaction(SECONDS) as transaction:
        effect(transaction.session(), claimed)
        more = world.job()
        other.push(more)
        (job,) = other.cycle(node, (), (), other.lanes(None), 5).claimed
        other.cycle(node, [world.completion(job)], (), other.lanes(None), 0)
        assert other.beat(node)
        transaction.acknowledge(world.completion(claimed))
        transaction.commit()
    other.close()

    assert world.state(more.id) is world.state(claimed.id) is State.COMPLETED


# --- setbacks and doubt -------------------------------------------------------------------------------------------


@pytest.mark.needs("concurrent_writers")
def test_a_deadlock_is_told_as_a_race(world: World, database: Database, claimed: ClaimedJob) -> None:
    database.run("INSERT INTO effects VALUES (1, 'a'), (2, 'b')")
    database.run("CREATE INDEX effects_number ON effects (number)")
    step = text("UPDATE effects SET job = 'c' WHERE number = :number")
    meeting = threading.Barrier(2)
    found: list[Setback | None] = []

    def cross(transaction: HandlerTransaction, *numbers: int) -> None:
        session = transaction.session()
        try:
            session.execute(step, {"number": numbers[0]})
            meeting.wait(SECONDS)
            session.execute(step, {"number": numbers[1]})
        except Exception as error:
            try:
                raise RuntimeError("as a handler may wrap it") from error
            except RuntimeError as wrapped:
                found.append(transaction.setback(wrapped))

    def in_thread(*numbers: int) -> None:
        with world.driver.transaction(SECONDS) as transaction:
            cross(transaction, *numbers)

    threads = [threading.Thread(target=in_thread, args=each) for each in ((1, 2), (2, 1))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [Setback.RACE]


@pytest.mark.needs("remote")
def test_a_cut_link_is_told_as_one(world: World, database: Database, claimed: ClaimedJob) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        session = transaction.session()
        effect(session, claimed)
        with database.engine.connect() as connection:
            database.server.end_others(connection)
        with pytest.raises(Exception) as caught:
            effect(session, claimed)
        assert transaction.setback(caught.value) is Setback.LINK

    assert run(world, claimed) is not None
    assert count(database) == 1


def test_an_error_of_the_handler_is_no_setback(world: World, claimed: ClaimedJob) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        with pytest.raises(Exception) as caught:
            transaction.session().execute(text("SELECT 1 FROM nowhere"))
        assert transaction.setback(caught.value) is None
        assert transaction.setback(RuntimeError()) is None


def test_the_fate_of_a_job_is_read_back(world: World, node: int, claimed: ClaimedJob) -> None:
    assert world.driver.fate(claimed.id, claimed.lease) is Fate.HELD
    assert world.driver.fate(claimed.id, claimed.lease + 1) is Fate.LOST
    run(world, claimed)
    assert world.driver.fate(claimed.id, claimed.lease) is Fate.COMPLETED
    assert world.driver.fate(claimed.id, claimed.lease - 1) is Fate.LOST
    world.push()
    failed = world.claim_one(node)
    world.end(node, failed, Verb.FAIL)
    assert world.driver.fate(failed.id, failed.lease) is Fate.LOST
    assert world.driver.fate(bytes(16), 1) is Fate.LOST


@pytest.mark.parametrize("commits", [True, False])
def test_the_fate_is_not_told_before_the_transaction_is_over(
    world: World, claimed: ClaimedJob, url: str, commits: bool
) -> None:
    other, told = open_driver(url), []
    asking = threading.Thread(target=lambda: told.append(other.fate(claimed.id, claimed.lease)))
    with world.driver.transaction(SECONDS) as transaction:
        transaction.acknowledge(world.completion(claimed))
        asking.start()
        asking.join(0.3)
        assert told == []
        if commits:
            transaction.commit()
    asking.join()
    other.close()

    assert told == [Fate.COMPLETED if commits else Fate.HELD]


def test_a_connection_is_used_again_after_a_roll_back(world: World, claimed: ClaimedJob) -> None:
    seen = set()
    for _ in range(3):
        with contextlib.suppress(RuntimeError), world.driver.transaction(SECONDS) as transaction:
            session = transaction.session()
            effect(session, claimed)
            seen.add(id(session.get_bind()))
            raise RuntimeError
    assert len(seen) == 1

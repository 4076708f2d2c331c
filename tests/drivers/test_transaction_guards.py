"""A handler's own transaction keeps what belongs to it: nothing escapes from it, and nothing joins it later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Integer, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from taskqueue.drivers.receipts import Setback
from taskqueue.errors import ConfigurationError, DatabaseBusy, UsageError
from tests.databases import Database
from tests.drivers.world import World

EFFECT = text("INSERT INTO effects (number) VALUES (1)")
SECONDS = 30.0


@pytest.fixture(autouse=True)
def effects(database: Database) -> Iterator[None]:
    """Give the user a table beside ours."""
    database.run("CREATE TABLE effects (number INTEGER)")
    yield
    with database.engine.connect() as connection:
        database.server.end_others(connection)
    database.run("DROP TABLE effects")


@pytest.fixture
def one_writer(world: World) -> None:
    if world.driver.capabilities.concurrent_writers:
        pytest.skip("many write at a time here")


def count(database: Database) -> int:
    ((found,),) = database.rows("SELECT count(*) FROM effects")
    return int(found)


# --- out of the transaction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "/* as if */ COMMIT",
        "/* as if */ /* again */ ROLLBACK",
        "-- as if\nCOMMIT",
        " ;; COMMIT",
        "( COMMIT",
        "/*! COMMIT */",
        "/*!50000 COMMIT */",
        "COMMIT/* as if */",
        "COMMIT\nWORK",
        "ROLLBACK/* TO */",
    ],
)
def test_an_end_of_the_transaction_in_disguise_is_refused(world: World, database: Database, words: str) -> None:
    with contextlib.suppress(RuntimeError), world.driver.transaction(SECONDS) as transaction:
        session = transaction.session()
        session.execute(EFFECT)
        with pytest.raises(UsageError, match="cannot commit or roll back"):
            session.connection().exec_driver_sql(words)
        raise RuntimeError
    assert count(database) == 0


@pytest.mark.parametrize("words", ["ROLLBACK TO SAVEPOINT mine", "/* back */ ROLLBACK\nTO SAVEPOINT mine"])
def test_a_handler_may_go_back_to_its_own_savepoint(world: World, words: str) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        session = transaction.session()
        for each in ("SAVEPOINT mine", "INSERT INTO effects (number) VALUES (1)", words):
            session.execute(text(each))
        assert session.scalar(text("SELECT count(*) FROM effects")) == 0


class Base(DeclarativeBase):
    pass


class Effect(Base):
    __tablename__ = "effects"
    number: Mapped[int] = mapped_column(Integer, primary_key=True)


class Routing(Session):
    def get_bind(self, *about: Any, **more: Any) -> Any:
        return super().get_bind(*about, **more)


def bound_elsewhere() -> sessionmaker[Session]:
    return sessionmaker(binds={Effect: create_engine("sqlite://")})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (bound_elsewhere, "has binds= or a get_bind"),
        (lambda: Routing, "has binds= or a get_bind"),
        (lambda: scoped_session(sessionmaker()), "got a scoped_session"),
    ],
)
def test_a_session_that_could_write_elsewhere_is_refused(world: World, make: Callable[[], Any], said: str) -> None:
    with world.driver.transaction(SECONDS) as transaction, pytest.raises(ConfigurationError, match=said):
        transaction.session(make())


# --- into a later one ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_a_session_cannot_be_used_after_its_transaction(
    world: World, database: Database, error: type[BaseException] | None
) -> None:
    with contextlib.suppress(RuntimeError, KeyboardInterrupt), world.driver.transaction(SECONDS) as transaction:
        leaked = transaction.session()
        leaked.execute(EFFECT)
        leaked.commit()
        if error is not None:
            raise error
    with world.driver.transaction(SECONDS) as transaction:
        transaction.session().execute(EFFECT)
        with pytest.raises(UsageError, match="ends with its transaction"):
            leaked.execute(EFFECT)
        assert transaction.session().scalar(text("SELECT count(*) FROM effects")) == 1
    with pytest.raises(UsageError, match="ends with its transaction"):
        leaked.execute(EFFECT)
    assert count(database) == 0


# --- its begin ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_writer")
def test_a_transaction_that_could_not_begin_runs_no_later_statement(world: World, database: Database) -> None:
    with world.driver.transaction(SECONDS, 0.1) as transaction:
        session = transaction.session()
        with world.driver.transaction(SECONDS) as other:
            other.session().execute(EFFECT)
            with pytest.raises(DatabaseBusy):
                session.execute(EFFECT)
        session.rollback()
        with pytest.raises(DatabaseBusy) as caught:
            session.execute(EFFECT)
        assert transaction.setback(caught.value) is Setback.WAIT
        assert transaction.setback(RuntimeError("what a handler makes of it")) is Setback.WAIT
    assert count(database) == 0


def test_what_is_around_the_begin_is_entered_once_and_by_the_first_statement(world: World) -> None:
    seen = []

    @contextmanager
    def around() -> Iterator[None]:
        seen.append("in")
        yield
        seen.append("out")

    with world.driver.transaction(SECONDS) as transaction:
        transaction.around_begin = around
        session = transaction.session()
        assert seen == []
        for _ in range(2):
            session.execute(EFFECT)
            assert seen == ["in", "out"]


# --- a disk on which nothing can be written -----------------------------------------------------------------------


@pytest.mark.usefixtures("one_writer")
@pytest.mark.parametrize("fault", ["PRAGMA max_page_count = 1", "PRAGMA query_only = 1"])
def test_a_full_disk_and_one_that_can_only_be_read_are_told_as_such(
    world: World, database: Database, fault: str
) -> None:
    with world.driver.transaction(SECONDS) as transaction:
        session = transaction.session()
        session.execute(text("SELECT count(*) FROM effects"))
        session.execute(text(fault))
        with pytest.raises(Exception) as caught:
            session.execute(text("INSERT INTO effects (number) VALUES (zeroblob(100000))"))
        assert transaction.setback(caught.value) is Setback.STORAGE
    with world.driver.transaction(SECONDS) as transaction:  # On a connection that knows nothing of it.
        transaction.session().execute(text("INSERT INTO effects (number) VALUES (zeroblob(100000))"))

"""Transactional jobs of the tests: each leaves one row in ``effects``, and dies or waits where it is told to."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from node_jobs import note, wait_for
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from taskqueue import Job
from taskqueue.drivers import transacting
from taskqueue.node import transacting as transacting_node

EFFECT = text("INSERT INTO effects (job, lease) VALUES (:job, :lease)")


def effect(job: Job, session: Session) -> None:
    session.execute(EFFECT, {"job": job.id.hex, "lease": job.fencing_token})


class Pay(Job):
    """Leaves one effect; its payload says what else is to happen."""

    name = "Pay"
    transactional = True
    transaction_timeout = 300  # Nothing here is to end by its time.
    max_attempts = 3

    def handle(self, session: Session) -> Any:
        wanted = self.payload or {}
        note(self)
        running.clear()
        running.update(lease=self.fencing_token, **wanted)
        reach("before effect")
        effect(self, session)
        if wanted.get("commit"):
            session.commit()
        if wanted.get("rollback"):
            session.rollback()
        if wanted.get("child") is not None:
            self.push(Child(), **wanted["child"])
        if self.attempt < wanted.get("fail_until", 0):
            raise RuntimeError("not yet")
        reach("after effect")
        return wanted.get("answer")


class Child(Job):
    """What a transactional job pushes."""

    name = "Child"

    def handle(self) -> None:
        note(self)


class OwnSession(Session):
    pass


class WithFactory(Job):
    """Wants a session of its own kind."""

    name = "WithFactory"
    transactional = True
    session_factory = sessionmaker(class_=OwnSession, expire_on_commit=False)

    def handle(self, session: Session) -> str:
        effect(self, session)
        return type(session).__name__


class Slow(Job):
    """Has little time, and lets it pass."""

    name = "Slow"
    transactional = True
    transaction_timeout = 0.5
    max_attempts = 1

    def handle(self, session: Session) -> None:
        note(self)
        effect(self, session)
        wait_for("never")


class TooLong(Slow):
    """Wants more time than its node can bear, and takes it."""

    name = "TooLong"
    transaction_timeout = 28


class Holding(Job):
    """Holds the write lock for a while, though far shorter than its time."""

    name = "Holding"
    transactional = True
    transaction_timeout = 6
    max_attempts = 1

    def handle(self, session: Session) -> None:
        note(self)
        effect(self, session)
        threading.Event().wait(2.5)


class NoRoom(Job):
    """Finds its disk unfit to be written on until its third run: to go back moves the lease as well."""

    name = "NoRoom"
    transactional = True
    max_attempts = 1

    def handle(self, session: Session) -> None:
        note(self)
        if self.fencing_token < 4:
            session.execute(text("PRAGMA query_only = 1"))
        effect(self, session)


class Leaking(Job):
    """Keeps its session, and uses it when all is over."""

    name = "Leaking"
    transactional = True
    max_attempts = 1

    def handle(self, session: Session) -> None:
        self.session = session
        session.execute(text("SELECT 1"))
        raise RuntimeError("not to be")

    def on_failure(self, error: BaseException) -> None:
        try:
            effect(self, self.session)
            self.session.commit()
        except Exception as refused:
            note(self, type(refused).__name__)
            raise


class Racing(Job):
    """Loses its transaction as often as its payload says, and changes its payload each time."""

    name = "Racing"
    transactional = True
    max_attempts = 1

    def handle(self, session: Session) -> Any:
        note(self, f"run {self.payload}")
        self.payload["seen"] = self.payload.get("seen", 0) + 1
        effect(self, session)
        file = Path(os.environ["TEST_FOLDER"], "races")
        races = int(file.read_text()) if file.exists() else 0
        if races < self.payload["races"]:
            file.write_text(str(races + 1))
            lose(session)
        return self.payload["seen"]


def lose(session: Session) -> None:
    """Raise what the database raises when a transaction loses against another one."""
    dialect = session.get_bind().dialect
    if hasattr(dialect, "is_mariadb"):
        session.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'deadlock'"))
    elif dialect.supports_native_uuid:
        session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$"))
    else:
        import sqlite3

        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error


# --- places at which a worker dies or waits -----------------------------------------------------------------------

running: dict[str, Any] = {}
"""What the job that runs was told: ``die`` names the place at which its worker is killed in its first run, ``wait`` the
one at which it waits for the gate ``open``."""


def leave(name: str, words: str) -> None:
    """Leave a file for the test, which sees it whole or not at all."""
    file = Path(os.environ["TEST_FOLDER"], name)
    new = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")  # Forks share the number of their main thread.
    new.write_text(words)
    new.rename(file)


def reach(place: str) -> None:
    if running.get("lease") != 1:
        return
    if running.get("die") == place:
        os.kill(os.getpid(), signal.SIGKILL)
    if running.get("wait") == place:
        leave("waiting", str(os.getpid()))
        wait_for("open")


def run(runs: transacting_node.Transacting, job: Job, claimed: Any) -> Any:
    outcome = _run(runs, job, claimed)
    leave(f"reported-{claimed.lease}", outcome.settled)
    return outcome


_run = transacting_node.Transacting.run
transacting_node.Transacting.run = run  # type: ignore[method-assign, assignment]
_commit, _end = transacting.Transaction.commit, transacting.Transaction._end


def commit(transaction: transacting.Transaction) -> bool:
    reach("before commit")
    committed = _commit(transaction)
    reach("after commit")
    return committed


def end(transaction: transacting.Transaction) -> None:
    failed = transaction._begun and running.get("fail_until")
    if failed:
        reach("before rollback")
    _end(transaction)
    if failed:
        reach("after rollback")


transacting.Transaction.commit = commit  # type: ignore[method-assign, assignment]
transacting.Transaction._end = end  # type: ignore[method-assign, assignment]

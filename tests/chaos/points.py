"""Named moments at which a process kills itself with SIGKILL: within a verb of the driver, at one of its statements.

The statements are seen where they leave for the database, in the library that speaks to it, so that a point holds on
every database and whatever the functions in between are called. Only one process of a run dies at a point: the
first one there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskqueue.states import Verb
from tests.chaos import journal
from tests.chaos.wrapping import around, around_verb, drivers

ENTER, WRITE, COMMIT, COMMITTED, LEAVE = "enter", "write", "commit", "committed", "leave"
"""Before anything, after a statement that writes, before COMMIT, after COMMIT, and once the verb is done."""

_READS = ("select", "begin", "set", "pragma", "show", "start", "rollback", "savepoint", "release", "explain", "use")


def _completes(values: Any) -> bool:
    return bool(values[1])


def _ends(verb: Verb) -> Callable[[Any], bool]:
    return lambda values: any(each.verb is verb for each in values[2])


def _only_claims(values: Any) -> bool:
    return not values[1] and not values[2] and values[4] > 0


@dataclass(frozen=True, slots=True)
class Point:
    """When to die: within which verb, where in it, and only for which arguments and statements."""

    verb: str
    when: str
    only: Callable[[Any], bool] = lambda _: True
    text: str = ""
    """What the statement has to name."""
    brought: bool = False
    """Whether only a cycle that has claimed something counts."""


POINTS: Mapping[str, Point] = {
    "in_register": Point("register_node", COMMIT),
    "after_register": Point("register_node", LEAVE),
    "in_beat": Point("beat", COMMIT),
    "in_claim": Point("cycle", COMMIT, _only_claims, brought=True),
    "after_claim": Point("cycle", LEAVE, brought=True),
    "before_ack": Point("cycle", ENTER, _completes),
    "in_ack": Point("cycle", WRITE, _completes),
    "after_ack_before_commit": Point("cycle", COMMIT, _completes),
    "after_commit": Point("cycle", COMMITTED, _completes),
    "in_retry": Point("cycle", COMMIT, _ends(Verb.RETRY)),
    "after_retry": Point("cycle", COMMITTED, _ends(Verb.RETRY)),
    "in_fail": Point("cycle", COMMIT, _ends(Verb.FAIL)),
    "after_fail": Point("cycle", COMMITTED, _ends(Verb.FAIL)),
    "in_release": Point("cycle", COMMIT, _ends(Verb.RELEASE)),
    "after_release": Point("cycle", COMMITTED, _ends(Verb.RELEASE)),
    "in_park": Point("cycle", COMMIT, _ends(Verb.PARK)),
    "in_unpark": Point("unpark", COMMIT),
    "in_dependency_release": Point("cycle", WRITE, _completes, text="tq_dependencies"),
    "in_dependency_failure": Point("cycle", WRITE, _ends(Verb.FAIL), text="tq_dependencies"),
    "in_promote": Point("promote", WRITE),
    "after_promote": Point("promote", LEAVE),
    "before_record_start": Point("record_start", ENTER),
    "after_record_start": Point("record_start", LEAVE),
    "in_declare_dead": Point("declare_dead", COMMIT),
    "after_declare_dead": Point("declare_dead", LEAVE),
    "in_rescue": Point("rescue", WRITE),
    "after_rescue_before_commit": Point("rescue", COMMIT),
    "after_rescue": Point("rescue", COMMITTED),
    "in_take_turn": Point("take_turn", LEAVE),
    "in_goodbye": Point("stop_node", COMMIT),
    "in_progress": Point("note", WRITE, text="progress"),
    "in_checkpoint": Point("note", COMMIT, text="checkpoint"),
    "after_checkpoint": Point("note", LEAVE, text="checkpoint"),
    "in_push_of_a_handler": Point("push_held", COMMIT),
    "after_push_of_a_handler": Point("push_held", LEAVE),
    "in_push": Point("push", COMMIT),
    "after_push": Point("push", LEAVE),
    "in_bulk_push": Point("push_many", WRITE),
    "after_bulk_push_before_commit": Point("push_many", COMMIT),
    "after_bulk_push": Point("push_many", COMMITTED),
    "in_unique_push": Point("push_each", WRITE),
    "in_revive": Point("revive", WRITE),
    "after_revive": Point("revive", COMMITTED),
    "in_cancel": Point("cancel", WRITE),
    "after_cancel": Point("cancel", COMMITTED),
    "in_update": Point("update", WRITE),
    "in_delete": Point("delete", WRITE),
    "in_migration": Point("", WRITE, text="CREATE TABLE"),
    "late_in_migration": Point("", WRITE, text="tq_duties"),
    "after_migration_before_commit": Point("", COMMIT),
}

IN_TEMPLATE = ("in_import", "in_fork")
"""Points of the template, which speaks to no database."""

IN_WORKER: Mapping[str, Point] = {
    "in_effect": Point("", WRITE, text="chaos_effects"),
    "in_ack_of_an_effect": Point("", WRITE, text="tq_history"),
    "before_commit_of_an_effect": Point("", COMMIT),
    "after_commit_of_an_effect": Point("", COMMITTED),
}
"""Points of a worker in the midst of a transactional job."""


class _Trap:
    """Where this process is, and whether that is the point."""

    def __init__(self, name: str, point: Point) -> None:
        self._name = name
        self._point = point
        self._here = threading.local()

    def verb(self, inner: Any, driver: Any, *values: Any, **named: Any) -> Any:
        """Run a verb, and die at its begin or its end if that is the point."""
        if getattr(self._here, "within", False) or not self._point.only(values):
            return inner(driver, *values, **named)
        if self._point.when == ENTER:
            die(self._name)
        self._here.within, self._here.wrote = True, False
        try:
            found = inner(driver, *values, **named)
        finally:
            self._here.within = False
        brought = not self._point.brought or bool(found.claimed)
        # Where a single statement is a transaction of its own there is no COMMIT to die at.
        if brought and self._here.wrote:
            die(self._name)
        return found

    def statement(self, text: str, run: Callable[[], Any]) -> Any:
        """Run a statement, and die before or after it if that is the point."""
        point = self._point
        if point.verb and not getattr(self._here, "within", False):
            return run()
        word = text.split(None, 1)[0].strip(";").lower() if text.strip() else ""
        if word == "commit":
            wrote = getattr(self._here, "wrote", False)
            if point.when == COMMIT and wrote:
                die(self._name)
            found = run()
            if point.when == COMMITTED and wrote:
                die(self._name)
            return found
        writes = word not in _READS
        found = run()
        if writes and point.text in text:
            self._here.wrote = True
            if point.when == WRITE:
                die(self._name)
        return found


def die(name: str) -> None:
    """Kill this process, if it is the first one to come here."""
    with contextlib.suppress(FileExistsError):
        marker = Path(os.environ[journal.FILE]).with_name(f"died-{name}")
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        journal.write("died", more=name)
        os.kill(os.getpid(), signal.SIGKILL)


def set_up(name: str) -> None:
    """Have this process die at a point of its own; one of the template or of a worker is none of its business."""
    if name in POINTS:
        _set_up(name, POINTS[name])


def _set_up(name: str, point: Point) -> None:
    trap = _Trap(name, point)
    if point.verb:
        around_verb(point.verb, trap.verb)
    else:
        drivers()
    for library, watch in _WATCHES.items():
        if library in sys.modules:
            watch(trap)


def set_up_in_template(name: str) -> None:
    """Have a template die while it imports the jobs or right after it has forked, or its workers at theirs."""
    if name in IN_WORKER:
        _set_up(name, IN_WORKER[name])
    elif name == "in_import":
        die(name)
    elif name == "in_fork":
        inner = os.fork

        def fork() -> int:
            pid = inner()
            if pid:
                die(name)
            return pid

        os.fork = fork


# --- where statements leave -------------------------------------------------------------------------------------------


def _watch_sqlite(trap: _Trap) -> None:
    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *values: Any) -> Any:
            return trap.statement(sql, lambda: super(Cursor, self).execute(sql, *values))

        def executemany(self, sql: str, *values: Any) -> Any:
            return trap.statement(sql, lambda: super(Cursor, self).executemany(sql, *values))

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, *values: Any) -> Any:
            return self.cursor().execute(sql, *values)

    inner = sqlite3.connect
    sqlite3.connect = lambda *values, **named: inner(*values, **{"factory": Connection, **named})


def _watch_psycopg(trap: _Trap) -> None:
    import psycopg

    def run(inner: Any, cursor: Any, query: Any, *values: Any, **named: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else str(query)
        return trap.statement(text, lambda: inner(cursor, query, *values, **named))

    for name in ("execute", "executemany"):
        around(psycopg.Cursor, name, run)

    def copy(inner: Any, cursor: Any, query: Any, *values: Any, **named: Any) -> Any:
        @contextlib.contextmanager
        def copying() -> Any:
            with inner(cursor, query, *values, **named) as found:
                yield found
            trap.statement(str(query), lambda: None)

        return copying()

    around(psycopg.Cursor, "copy", copy)


def _watch_pymysql(trap: _Trap) -> None:
    from pymysql.connections import Connection

    def commit(inner: Any, connection: Any) -> Any:
        return trap.statement("COMMIT", lambda: inner(connection))

    def query(inner: Any, connection: Any, sql: Any, *values: Any, **named: Any) -> Any:
        text = sql.decode(errors="replace") if isinstance(sql, bytes | bytearray) else str(sql)
        return trap.statement(text, lambda: inner(connection, sql, *values, **named))

    around(Connection, "commit", commit)
    around(Connection, "query", query)


_WATCHES: Mapping[str, Callable[[_Trap], None]] = {
    "sqlite3": _watch_sqlite,
    "psycopg": _watch_psycopg,
    "pymysql": _watch_pymysql,
}

"""How to see whether a MySQL or MariaDB server is well. InnoDB clears deleted rows away by itself: nothing to tend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

from taskqueue.clock import Clock
from taskqueue.drivers.examination import (
    Check,
    clock_skew,
    connections,
    each_of,
    error,
    ok,
    oldest_transaction,
    rights,
    size_text,
    warning,
)
from taskqueue.drivers.values import Finding

_OLDEST_MYSQL, _OLDEST_MARIADB = (8, 0, 1), (10, 6, 0)
"""The first versions with SKIP LOCKED."""
_SMALL_PACKET: Final = 16 * 1024**2
_SMALLEST_PACKET: Final = 4 * 1024**2
"""A payload and a result may have 1 MiB each; below this a row would not fit with what is around it."""
_LONG_HISTORY: Final = 1_000_000
_SHORT_WAIT: Final = 30

_VARIABLES = text(
    "SHOW GLOBAL VARIABLES WHERE variable_name IN ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin',"
    " 'innodb_doublewrite', 'max_allowed_packet', 'max_connections', 'read_only', 'wait_timeout')"
)
_ISOLATION = text("SHOW SESSION VARIABLES WHERE variable_name IN ('transaction_isolation', 'tx_isolation')")
_CONNECTED = text("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
_ALIVE = text("SELECT count(*) FROM tq_nodes WHERE state IN ('alive', 'draining', 'quiet')")
_OLD_TRANSACTION = text(
    "SELECT TIMESTAMPDIFF(SECOND, trx_started, NOW()) AS age, trx_mysql_thread_id AS thread"
    " FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> CONNECTION_ID() ORDER BY trx_started LIMIT 1"
)
_HISTORY_LENGTH = text("SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'")
_SIZES = text(
    "SELECT table_name AS name, data_length AS data, index_length AS indexes, engine AS engine"
    " FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'tq\\_%'"
)
_NOW = text("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)")
_VERSION = text("SELECT VERSION()")
_NUMBER = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def examine(connection: Connection, clock: Clock) -> list[Finding]:
    """Return what there is to say of the server and of our tables on it."""
    checks: list[tuple[str, Check]] = [
        ("version", _version),
        ("isolation", _isolation),
        ("oldest transaction", _oldest_transaction),
        ("dead rows", _undo_history),
        ("size", _sizes),
        ("clock", lambda link: [_skew(link, clock)]),
        ("rights", rights),
        ("durability", _durability),
        ("packet", _packet),
        ("idle connections", _idle),
        ("connections", _connections),
    ]
    return each_of(connection, checks)


def _version(connection: Connection) -> Iterator[Finding]:
    name = str(connection.execute(_VERSION).scalar_one())
    is_mariadb = "mariadb" in name.lower()
    kind, oldest = ("MariaDB", _OLDEST_MARIADB) if is_mariadb else ("MySQL", _OLDEST_MYSQL)
    numbers = _NUMBER.search(name.removeprefix("5.5.5-"))
    if numbers is not None and tuple(map(int, numbers.groups())) < oldest:
        needed = ".".join(map(str, oldest))
        yield error("version", f"{kind} {name} is too old, {needed} is needed (SKIP LOCKED)", "upgrade the server")
    else:
        yield ok("version", f"{kind} {name}")


def _isolation(connection: Connection) -> Iterator[Finding]:
    level = str(connection.execute(_ISOLATION).all()[0][1]).replace("-", " ").lower()
    if level == "read committed":
        yield ok("isolation", "taskqueue's own transactions are read committed")
    else:
        sentence = f"taskqueue's own transactions are {level}: claims lock gaps and meet in deadlocks"
        yield error("isolation", sentence, "remove what sets the isolation level in init_connect or in a proxy")
    if _variables(connection).get("read_only") in ("ON", "1"):
        yield error("writable", "this server is read-only", "connect to the primary")


def _oldest_transaction(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_OLD_TRANSACTION).one_or_none()
    yield oldest_transaction(float(row.age), f"thread {row.thread}") if row else oldest_transaction(None, "")


def _undo_history(connection: Connection) -> Iterator[Finding]:
    length = int(connection.execute(_HISTORY_LENGTH).scalar() or 0)
    sentence = f"{length:,} changes wait to be cleared away on this server"
    if length < _LONG_HISTORY:
        yield ok("dead rows", sentence)
    else:
        yield warning("dead rows", sentence, "end the oldest transaction; see innodb_purge_threads if there is none")


def _sizes(connection: Connection) -> Iterator[Finding]:
    rows = {row.name: row for row in connection.execute(_SIZES)}
    live, history = rows["tq_jobs"], rows["tq_history"]
    parts = (live.data or 0, live.indexes or 0, (history.data or 0) + (history.indexes or 0))
    data, indexes, finished = map(size_text, map(float, parts))
    yield ok("size", f"live jobs {data} and their indexes {indexes}, history {finished}")
    others = sorted(name for name, row in rows.items() if row.engine != "InnoDB")
    if others:
        sentence = f"{', '.join(others)} without transactions: a crash loses jobs"
        yield error("engine", sentence, "ALTER TABLE each of them ENGINE = InnoDB, with the nodes stopped")


def _skew(connection: Connection, clock: Clock) -> Finding:
    before = clock.now_us()
    server = int(connection.execute(_NOW).scalar_one())
    return clock_skew(server, before, clock.now_us())


def _variables(connection: Connection) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in connection.execute(_VARIABLES)}


def _durability(connection: Connection) -> Iterator[Finding]:
    settings = _variables(connection)
    if settings.get("innodb_doublewrite", "ON") in ("OFF", "0", "DETECT_ONLY"):
        sentence = "innodb_doublewrite is off: a power cut may destroy the database, with every job in it"
        yield error("durability", sentence, "set innodb_doublewrite to ON in the server's configuration")
        return
    loose = []
    if settings.get("innodb_flush_log_at_trx_commit") != "1":
        loose.append("innodb_flush_log_at_trx_commit")
    if settings.get("log_bin") in ("ON", "1") and settings.get("sync_binlog") != "1":
        loose.append("sync_binlog")
    if loose:
        names = " and ".join(loose)
        said = ", ".join(f"{name} is {settings.get(name)}" for name in loose)
        yield warning("durability", f"{said}: a power cut may take the last pushes with it", f"set {names} to 1")
    else:
        yield ok("durability", "a push survives a power cut (the log is written at each commit)")


def _packet(connection: Connection) -> Iterator[Finding]:
    size = int(_variables(connection)["max_allowed_packet"])
    sentence = f"a statement may have {size_text(size)} (max_allowed_packet)"
    if size >= _SMALL_PACKET:
        yield ok("packet", sentence)
        return
    fix = f"set max_allowed_packet to {size_text(_SMALL_PACKET)} or more"
    yield error("packet", sentence, fix) if size < _SMALLEST_PACKET else warning("packet", sentence, fix)


def _idle(connection: Connection) -> Iterator[Finding]:
    seconds = int(_variables(connection)["wait_timeout"])
    sentence = f"the server closes a connection after {seconds} s of silence (wait_timeout)"
    if seconds >= _SHORT_WAIT:
        yield ok("idle connections", sentence)
    else:
        yield warning("idle connections", f"{sentence}, so nodes connect again and again", "set it to 60 or more")


def _connections(connection: Connection) -> Iterator[Finding]:
    most = int(_variables(connection)["max_connections"])
    used = int(connection.execute(_CONNECTED).one()[1])
    yield connections(used, most, int(connection.execute(_ALIVE).scalar_one()))

"""What PostgreSQL needs to stay quick under a queue, and how to see whether it is well.

Every job leaves two dead rows in ``tq_jobs``. The server's own cleaning comes a minute later at best, so nodes vacuum
that one table themselves, in turns: measured, 300,000 jobs left 4 MB instead of 156 MB. VACUUM never waits for claims
nor they for it. It needs the table's owner (or MAINTAIN); without, settings of the table make autovacuum as eager as it
can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateIndex

from taskqueue.clock import Clock
from taskqueue.drivers.examination import (
    Check,
    clock_skew,
    connections,
    each_of,
    error,
    missing_indexes,
    ok,
    oldest_transaction,
    rights,
    size_text,
    warning,
)
from taskqueue.drivers.postgresql_link import Link
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.values import Finding

FEWEST_DEAD: Final = 5_000
DEAD_SHARE: Final = 0.2
VACUUM_EVERY: Final = 1.0
TRY_AGAIN: Final = 60.0
"""Seconds after which dead rows that could not be removed, as an old snapshot still saw them, are tried again."""

_OLDEST: Final = 130_000
"""Version 13: VACUUM with SKIP_LOCKED and without TRUNCATE came with 12, and 13 is the oldest that was ever tried."""
_MANY_DEAD: Final = 100_000

_DEAD = text("SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass('tq_jobs')")
_VACUUM = text("VACUUM (SKIP_LOCKED, TRUNCATE false) tq_jobs")
_MAY_VACUUM = text(
    "SELECT pg_has_role(c.relowner, 'USAGE') AS owner,"
    " coalesce(c.reloptions::text, '') LIKE '%autovacuum_vacuum_scale_factor%' AS eager"
    " FROM pg_class c WHERE c.oid = to_regclass('tq_jobs')"
)
_MAY_MAINTAIN = text("SELECT has_table_privilege('tq_jobs', 'MAINTAIN')")
_MAINTAIN_SINCE: Final = 170_000
EAGER_AUTOVACUUM: Final = (
    "ALTER TABLE tq_jobs SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,"
    " autovacuum_vacuum_cost_delay = 0)"
)
_EAGER = text(EAGER_AUTOVACUUM)
_INVALID = text(
    "SELECT i.indexrelid::regclass::text FROM pg_index i"
    " WHERE NOT i.indisvalid AND i.indrelid::regclass::text LIKE 'tq\\_%' ORDER BY 1"
)
_OLD_TRANSACTION = text(
    "SELECT extract(epoch FROM clock_timestamp() - xact_start)::float AS age, who FROM ("
    " SELECT xact_start, 'process ' || pid || ' of ' || coalesce(usename, '?') || ', ' || coalesce(state, '?')"
    " || coalesce(', application ' || nullif(application_name, ''), '') AS who"
    " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    " AND datname = current_database()"
    " UNION ALL SELECT prepared, 'prepared transaction ' || gid FROM pg_prepared_xacts"
    " WHERE database = current_database()"
    ") AS open WHERE xact_start IS NOT NULL ORDER BY xact_start LIMIT 1"
)
_SIZES = text(
    "SELECT pg_table_size('tq_jobs') AS live, pg_indexes_size('tq_jobs') AS live_indexes,"
    " pg_total_relation_size('tq_history') AS history"
)
_SETTINGS = text(
    "SELECT name, reset_val FROM pg_settings WHERE name IN"
    " ('synchronous_commit', 'fsync', 'full_page_writes', 'autovacuum', 'max_connections',"
    " 'superuser_reserved_connections')"
)
_CONNECTED = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
_ALIVE = text("SELECT count(*) FROM tq_nodes WHERE state IN ('alive', 'draining', 'quiet')")
_NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
_VERSION = text("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
_ISOLATION = text(
    "SELECT reset_val, current_setting('transaction_isolation'), pg_is_in_recovery()"
    " FROM pg_settings WHERE name = 'default_transaction_isolation'"
)


class DeadRows:
    """When the table of live jobs is to be vacuumed: what is dead in it, beyond what the last time had to leave."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = 0
        self._last = clock.monotonic() - TRY_AGAIN

    def due(self, dead: int, live: int) -> bool:
        """Say whether so many dead rows are worth the work."""
        self._left = min(self._left, dead)
        waited = self._clock.monotonic() - self._last >= TRY_AGAIN
        new = dead if waited else dead - self._left
        return new > max(FEWEST_DEAD, DEAD_SHARE * (live + (0 if waited else self._left)))

    def note(self, left: int) -> None:
        """Remember how many dead rows the vacuum had to leave."""
        self._left = left
        self._last = self._clock.monotonic()


def dead_rows(connection: Connection) -> tuple[int, int]:
    """Return how many rows of the table of live jobs are dead and how many live, as the server estimates it."""
    row = connection.execute(_DEAD).one_or_none()
    return (int(row[0]), int(row[1])) if row is not None else (0, 0)


def may_vacuum(connection: Connection) -> bool:
    """Say whether this user may vacuum; to one that may not the server only says a warning."""
    if connection.execute(_MAY_VACUUM).one().owner:
        return True
    return _version_of(connection) >= _MAINTAIN_SINCE and bool(connection.execute(_MAY_MAINTAIN).scalar_one())


def vacuum(connection: Connection) -> None:
    """Free the dead rows of the table of live jobs; skipped where another vacuum is at it. Not in a transaction."""
    with _link_of(connection).unlimited():
        connection.execute(_VACUUM)


def _link_of(connection: Connection) -> Link:
    link: Any = connection.connection.driver_connection
    return cast("Link", link)


def _version_of(connection: Connection) -> int:
    return int(connection.execute(_VERSION).one()[0])


def examine(connection: Connection, clock: Clock) -> list[Finding]:
    """Return what there is to say of the server and of our tables on it."""
    checks: list[tuple[str, Check]] = [
        ("version", _version),
        ("isolation", _isolation),
        ("pooler", _pooler),
        ("indexes", _invalid),
        ("oldest transaction", _oldest_transaction),
        ("dead rows", _dead),
        ("size", _sizes),
        ("clock", lambda link: [_skew(link, clock)]),
        ("rights", rights),
        ("vacuum", _vacuum_right),
        ("durability", _durability),
        ("autovacuum", _autovacuum),
        ("connections", _connections),
    ]
    return each_of(connection, checks)


def _version(connection: Connection) -> Iterator[Finding]:
    number, name = connection.execute(_VERSION).one()
    if number >= _OLDEST:
        yield ok("version", f"PostgreSQL {name}")
    else:
        yield error("version", f"PostgreSQL {name} is too old, {_OLDEST // 10_000} is needed", "upgrade the server")


def _isolation(connection: Connection) -> Iterator[Finding]:
    default, own, standby = connection.execute(_ISOLATION).one()
    what = f"single statements run as {own}, transactions as read committed"
    yield ok("isolation", f"the server's default is {default}; of taskqueue's own, {what}")
    if standby:
        yield error("writable", "this server is a standby and takes no writes", "connect to the primary")


def _pooler(connection: Connection) -> Iterator[Finding]:
    link: Any = connection.connection.driver_connection
    if not link.pooled:
        yield ok("pooler", "no pooler in between")
        return
    sentence = "a pooler is in between, so no notification is relied on: an idle node looks for jobs by polling"
    yield ok("pooler", sentence)


def _invalid(connection: Connection) -> Iterator[Finding]:
    names = list(connection.execute(_INVALID).scalars())
    if names:
        sentence = f"half made and of no use: {', '.join(names)}"
        yield error("indexes", sentence, "run `worker doctor --fix`, which makes them again beside running nodes")


def _oldest_transaction(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_OLD_TRANSACTION).one_or_none()
    yield oldest_transaction(row.age, row.who) if row is not None else oldest_transaction(None, "")


def _dead(connection: Connection) -> Iterator[Finding]:
    dead, live = dead_rows(connection)
    sentence = f"about {dead:,} dead rows beside {live:,} live ones in tq_jobs"
    if dead <= max(_MANY_DEAD, live):
        yield ok("dead rows", sentence)
    else:
        yield warning("dead rows", sentence, "end the oldest transaction, or run VACUUM tq_jobs as its owner")


def _sizes(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_SIZES).one()
    live, indexes, history = map(size_text, row)
    yield ok("size", f"live jobs {live} and their indexes {indexes}, history {history}")


def _skew(connection: Connection, clock: Clock) -> Finding:
    before = clock.now_us()
    server = int(connection.execute(_NOW).scalar_one())
    return clock_skew(server, before, clock.now_us())


def _vacuum_right(connection: Connection) -> Iterator[Finding]:
    if may_vacuum(connection):
        yield ok("vacuum", "nodes may vacuum tq_jobs, and do")
    elif connection.execute(_MAY_VACUUM).one().eager:
        yield ok("vacuum", "nodes may not vacuum tq_jobs, and autovacuum is set to be eager there")
    else:
        fix = f"let the nodes connect as the owner of the tables, or have it run: {EAGER_AUTOVACUUM}"
        yield warning("vacuum", "nodes may not vacuum tq_jobs, so it grows and slows claims down", fix)


def _settings(connection: Connection) -> dict[str, str]:
    return {str(name): str(value) for name, value in connection.execute(_SETTINGS)}


def _durability(connection: Connection) -> Iterator[Finding]:
    settings = _settings(connection)
    off = [name for name in ("fsync", "full_page_writes") if settings[name] == "off"]
    if off:
        sentence = f"{' and '.join(off)} off: a power cut may destroy the database, with every job in it"
        yield error("durability", sentence, f"set {' and '.join(off)} to on in the server's configuration")
        return
    if settings["synchronous_commit"] == "off":
        sentence = "synchronous_commit is off: taskqueue sets it on for itself, not for pushes in your own transactions"
        yield warning("durability", sentence, "set synchronous_commit to on for this database and user")
        return
    yield ok("durability", "a push survives a power cut (fsync, full_page_writes and synchronous_commit are on)")


def _autovacuum(connection: Connection) -> Iterator[Finding]:
    if _settings(connection)["autovacuum"] == "on":
        yield ok("autovacuum", "on")
    else:
        sentence = "off: what is purged from the history is not used again, and plans are made without statistics"
        yield warning("autovacuum", sentence, "set autovacuum to on in the server's configuration")


def _connections(connection: Connection) -> Iterator[Finding]:
    settings = _settings(connection)
    most = int(settings["max_connections"]) - int(settings["superuser_reserved_connections"])
    used, nodes = (int(connection.execute(each).scalar_one()) for each in (_CONNECTED, _ALIVE))
    yield connections(used, most, nodes)


def mend(connection: Connection) -> list[str]:
    """Make missing and half made indexes without keeping writers waiting; let autovacuum be eager. No transaction."""
    with _link_of(connection).unlimited():
        return _mended(connection)


def _mended(connection: Connection) -> list[str]:
    done = []
    for name in list(connection.execute(_INVALID).scalars()):
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {quoted}")
        done.append(f"removed the half made index {name}")
    for index in missing_indexes(connection):
        statement = str(CreateIndex(index).compile(dialect=connection.dialect)).strip()
        connection.exec_driver_sql(statement.replace("INDEX", "INDEX CONCURRENTLY", 1))
        done.append(f"made the index {index.name}")
    found = connection.execute(_MAY_VACUUM).one()
    if found.owner and not found.eager:
        connection.execute(_EAGER)
        done.append("made autovacuum eager on tq_jobs")
    return done


def tend(driver: SQLDriver, rows: DeadRows, node_id: int) -> list[str]:
    """Vacuum the table of live jobs if that is due, allowed, and this node's turn."""
    dead, live = driver.read(dead_rows)
    if not rows.due(dead, live):
        return []
    if not driver.read(may_vacuum):
        rows.note(dead)
        return []
    if not driver.take_turn("vacuum", node_id, VACUUM_EVERY):
        return []
    driver.read(vacuum)
    left, _ = driver.read(dead_rows)
    rows.note(left)
    return [f"vacuumed tq_jobs: {dead:,} dead rows, {left:,} left"]

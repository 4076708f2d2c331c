"""What can be examined the same way on every database, and what a check has to keep to.

A check is a function from a connection to findings. It changes nothing. One that the database refuses, as to a user
without the right to look, becomes a finding itself and keeps no other from being made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Index, Table, delete, false, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from taskqueue.clock import Clock
from taskqueue.drivers import schema
from taskqueue.drivers.schema import Fit
from taskqueue.drivers.tables import installation, is_made_on, metadata
from taskqueue.drivers.values import Finding, Level

Check = Callable[[Connection], Iterable[Finding]]

SLOW_MS: Final = 20.0
"""A round trip from which on the network bounds the rate of a node."""
_LOOKS: Final = 5
FIX_INDEX: Final = "run `worker doctor --fix`"


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, Level.OK, message)


def warning(check: str, message: str, fix: str) -> Finding:
    """Return a finding that works and should be looked at."""
    return Finding(check, Level.WARNING, message, fix)


def error(check: str, message: str, fix: str) -> Finding:
    """Return a finding that breaks a promise."""
    return Finding(check, Level.ERROR, message, fix)


def each_of(connection: Connection, checks: Sequence[tuple[str, Check]]) -> list[Finding]:
    """Run checks, given by name; one that the database refuses is a warning."""
    found: list[Finding] = []
    for name, check in checks:
        try:
            found += check(connection)
        except SQLAlchemyError as refusal:
            if isinstance(refusal, DBAPIError) and refusal.connection_invalidated:
                raise
            reason = str(getattr(refusal, "orig", None) or refusal).strip().partition("\n")[0]
            found.append(warning(name, f"could not be examined: {reason}", "give this user the right to look"))
    return found


def general(connection: Connection, clock: Clock) -> list[Finding]:
    """Return how long a round trip takes, whether the tables fit, and which index is missing."""
    status = schema.read_status(connection)
    if status.fit is not Fit.CURRENT:
        return [_misfit(status)]
    found = [ok("schema", f"the tables are those of revision {status.current}")]
    return [_round_trip(connection, clock), *found, *index_findings(connection)]


def _misfit(status: schema.SchemaStatus) -> Finding:
    at = f"at revision {status.current}" if status.current else "without the tables of taskqueue"
    fix = "install the newer release" if status.fit is Fit.NEWER else "stop the nodes and run `worker db:upgrade`"
    return error("schema", f"the database is {at}, this release needs revision {status.needed}", fix)


def _round_trip(connection: Connection, clock: Clock) -> Finding:
    times = []
    for _ in range(_LOOKS):
        began = clock.monotonic()
        connection.execute(select(installation.c.id)).one()
        times.append((clock.monotonic() - began) * 1000)
    took = sorted(times)[_LOOKS // 2]
    sentence = f"answers within {took:.1f} ms"
    if took < SLOW_MS:
        return ok("reachable", sentence)
    return warning("reachable", sentence, "bring the nodes nearer to the database, or look at what keeps it busy")


def missing_indexes(connection: Connection) -> list[Index]:
    """Return the indexes of our tables that are not there."""
    inspector, dialect = inspect(connection), connection.dialect.name
    return [
        index for table in metadata.sorted_tables for index in _missing(inspector, table) if is_made_on(index, dialect)
    ]


def _missing(inspector: Any, table: Table) -> Iterator[Index]:
    there = {each["name"] for each in inspector.get_indexes(table.name)}
    yield from (index for index in table.indexes if index.name not in there)


def index_findings(connection: Connection) -> list[Finding]:
    """Say which index is missing."""
    missing = sorted(str(index.name) for index in missing_indexes(connection))
    if not missing:
        return [ok("indexes", "every index is there")]
    names = ", ".join(missing)
    sentence = f"missing: {names}; what it serves reads whole tables"
    return [warning("indexes", sentence, f"{FIX_INDEX}, which makes it beside running nodes")]


def make_missing_indexes(connection: Connection) -> list[str]:
    """Make the indexes that are missing. Writers of their tables may have to wait meanwhile."""
    made = []
    for index in missing_indexes(connection):
        index.create(connection)
        made.append(f"made the index {index.name}")
    return made


def rights(connection: Connection) -> list[Finding]:
    """Say which of reading, inserting, changing and deleting is refused, by statements that match no row."""
    refused: dict[str, list[str]] = {}
    for table in metadata.sorted_tables:
        for right, statement in _tried(table):
            try:
                connection.execute(statement)
            except DBAPIError as refusal:
                if refusal.connection_invalidated:
                    raise
                refused.setdefault(right, []).append(table.name)
    if not refused:
        return [ok("rights", "this user may read and write every table")]
    said = "; ".join(f"{right} on {', '.join(names)}" for right, names in refused.items())
    return [error("rights", f"this user has no right to {said}", "grant the rights to the user that nodes connect as")]


def _tried(table: Table) -> Iterator[tuple[str, Any]]:
    first = next(iter(table.columns))
    nothing = select(*table.columns).where(false())
    yield "select", nothing
    yield "insert", insert(table).from_select([column.name for column in table.columns], nothing)
    yield "update", update(table).where(false()).values({first: first})
    yield "delete", delete(table).where(false())


def clock_skew(server_us: int, before_us: int, after_us: int) -> Finding:
    """Compare the server's clock with ours, read before and after it."""
    if before_us <= server_us <= after_us:
        return ok("clock", "the server's clock is that of this machine")
    skew = (server_us - (before_us + after_us) // 2) / 1e6
    sentence = f"the server's clock is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) < MOST_SKEW:
        return ok("clock", sentence)
    fix = "set both by NTP: due times and ages are those of the machine that reads them"
    return warning("clock", sentence, fix)


MOST_SKEW: Final = 0.5
"""Seconds by which clocks may differ: half of the slack that claims have for rows which come late."""

LONG_TRANSACTION: Final = 60.0
"""Seconds from which on a transaction counts as forgotten."""


def oldest_transaction(seconds: float | None, who: str) -> Finding:
    """Judge the age of the oldest open transaction."""
    if seconds is None or seconds < LONG_TRANSACTION:
        return ok("oldest transaction", "no transaction has been open for longer than a minute")
    return warning(
        "oldest transaction",
        f"one has been open for {seconds:.0f} s ({who}): while it is, deleted rows cannot be cleared away",
        "end it; look for a forgotten session, a dump or a report that holds it open",
    )


def connections(used: int, most: int, nodes: int) -> Finding:
    """Judge whether nodes that come can still connect."""
    sentence = f"{used} of {most} connections are in use, {nodes} node{'' if nodes == 1 else 's'} alive"
    if most - used >= max(CONNECTIONS_OF_A_NODE, most // 10):
        return ok("connections", sentence)
    fix = f"raise max_connections or put a pooler in between: a node holds up to {CONNECTIONS_OF_A_NODE}"
    return warning("connections", sentence, fix)


CONNECTIONS_OF_A_NODE: Final = 10
"""One for each thread that talks to the database: the dispatcher's two, one for each loop, one to listen."""


def size_text(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"

"""Counts that do not hang on the machine: statements and round trips a call, by the size of the batch.

    python -m benchmarks.statements [--database NAME] [--json]

On a server they are counted on the wire, by a proxy that reads what the client says; on a database in a file by the
library's own trace, which counts a row of ``executemany`` as a statement. Beside them stand the bytes that the server
wrote into its log for each job: those are the whole server's, so nothing else may be at work there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from benchmarks.databases import KINDS
from benchmarks.databases.kind import VERBS, Kind, Place
from benchmarks.driver import completions, new_job
from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.base import Driver

PUSH, BULK, CYCLE, IDLE_CYCLE = VERBS
BATCHES = (1, 10, 100, 1_000)
_WARM, _TAKEN = 2, 3
"""Calls that come first, so that connections are open and statements are known; and calls that are counted."""
_NODE = 1
COLUMNS = ("what", "batch", "statements", "round trips", "statements a job", "log bytes a job")


@dataclass(frozen=True, slots=True)
class Talk:
    """What one call of a verb says to the database."""

    database: str
    what: str
    batch: int
    statements: float
    round_trips: float | None
    """None where there is no server."""
    log_bytes: float | None
    """Of each job; None where the database does not tell."""


def talks(kind: Kind, batches: Sequence[int] = BATCHES) -> Iterator[Talk]:
    """Count all verbs on a database."""
    with kind.empty() as place:
        migrate.upgrade(place.url)
        for what, prepare in _VERBS.items():
            for batch in batches if what in (BULK, CYCLE) else (1,):
                yield _counted(place, what, prepare, batch)


Prepare = Callable[[Driver, str, int], Callable[[], object]]


def _counted(place: Place, what: str, prepare: Prepare, batch: int) -> Talk:
    kind = place.kind
    with kind.counting(place.url) as (url, count), closing(open_driver(url)) as driver, place.looking() as look:
        call = prepare(driver, f"{what}, {batch}", batch)
        for _ in range(_WARM):
            call()
        said, written = count.copy(), _log_position(kind, look)
        for _ in range(_TAKEN):
            call()
        found, position = count.since(said), _log_position(kind, look)
    log_bytes = None if written is None or position is None else (position - written) / (_TAKEN * batch)
    trips = found.round_trips / _TAKEN if kind.has_wire else None
    return Talk(kind.name, what, batch, found.statements / _TAKEN, trips, log_bytes)


def _log_position(kind: Kind, look: Connection) -> int | None:
    return None if kind.log_position is None else int(look.exec_driver_sql(kind.log_position).scalar() or 0)


def row_of(talk: Talk) -> list[str]:
    """Return the cells of a table's row, as `COLUMNS` names them."""
    return [
        talk.what,
        f"{talk.batch:,}",
        f"{talk.statements:g}",
        "" if talk.round_trips is None else f"{talk.round_trips:g}",
        f"{talk.statements / talk.batch:.2g}",
        "" if talk.log_bytes is None else f"{talk.log_bytes:,.0f}",
    ]


# --- the verbs -------------------------------------------------------------------------------------------------------


def _push(driver: Driver, queue: str, _batch: int) -> Callable[[], object]:
    return lambda: driver.push(new_job(queue))


def _push_many(driver: Driver, queue: str, batch: int) -> Callable[[], object]:
    return lambda: driver.push_many([new_job(queue) for _ in range(batch)])


def _cycle(driver: Driver, queue: str, batch: int) -> Callable[[], object]:
    """Return a cycle that completes what the one before it claimed, and claims as many."""
    calls = 1 + _WARM + _TAKEN
    driver.push_many([new_job(queue) for _ in range(batch * calls)])
    lanes = driver.lanes((queue,))
    claimed = [driver.cycle(_NODE, (), (), lanes, batch).claimed]

    def call() -> None:
        done = completions(claimed.pop())
        claimed.append(driver.cycle(_NODE, done, (), lanes, batch).claimed)
        if not len(done) == len(claimed[0]) == batch:
            raise RuntimeError(f"{batch} jobs were to be claimed, {len(claimed[0])} were")

    return call


def _idle_cycle(driver: Driver, queue: str, _batch: int) -> Callable[[], object]:
    driver.push(new_job(queue))
    lanes = driver.lanes((queue,))
    driver.cycle(_NODE, completions(driver.cycle(_NODE, (), (), lanes, 1).claimed), (), lanes, 0)
    return lambda: driver.cycle(_NODE, (), (), lanes, 100)


_VERBS: dict[str, Prepare] = {PUSH: _push, BULK: _push_many, CYCLE: _cycle, IDLE_CYCLE: _idle_cycle}


def main(arguments: Sequence[str]) -> int:
    """Count, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=KINDS, action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kinds = [KINDS[name] for name in options.database or KINDS if KINDS[name].missing() is None]
    found = [talk for kind in kinds for talk in talks(kind)]
    if options.json:
        print(json.dumps([asdict(talk) for talk in found], indent=2))
        return 0
    table = Table("database", *COLUMNS)
    for talk in found:
        table.add_row(talk.database, *row_of(talk))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

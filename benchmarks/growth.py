"""Draining beside much that is stored: jobs that wait, jobs that have finished, a transaction that stays open.

Each world is a database that is filled once. Then in each round, in turns with an empty one, jobs are pushed into a
paused queue, a node starts, the queue is resumed, and the rate is counted from the first start to the finish of the
last but some: more jobs are pushed than are counted, so that the end of a backlog is no part of it. What waits behind
them was stored with a ready time that lies far off, so that the pushed ones come first.

The rows of a world are copies of one real row, made by the database: that is no measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, insert, literal, select, text

from benchmarks.databases.kind import Kind, Place
from benchmarks.drain import QUEUE, await_finished, finished
from benchmarks.jobs import PAYLOAD, Nothing
from benchmarks.measure import OURS, Contestant, Label, Sample, Sizes, cpu_of
from benchmarks.node import running_node
from benchmarks.push import fill
from taskqueue.drivers.tables import COMPLETED, history, jobs
from taskqueue.manager import QueueManager

GROWTH = "drain beside"
ALONE, BEHIND, ELSEWHERE, FINISHED, SNAPSHOT = (
    "nothing else",
    "jobs waiting behind",
    "jobs waiting in other queues",
    "finished jobs",
    "a transaction left open",
)
WORKERS = 1
_FEWEST_MORE = 1_000
_OTHER_QUEUES = ("other-1", "other-2", "other-3", "other-4")
_FAR_OFF = 10 * 365 * 86_400_000_000
_AGO = 86_400_000_000
_DIGIT = "(" + " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10)) + ")"


@dataclass(frozen=True, slots=True)
class World:
    """What is stored beside the jobs that are drained."""

    name: str
    rows: int
    furnish: Callable[[Place, Sizes], None]
    transaction: bool = False
    """Whether another connection keeps a transaction open that began before the push."""

    @property
    def shown(self) -> str:
        """Return its name with its size."""
        return f"{self.rows:,} {self.name}" if self.rows else self.name


def worlds(kind: Kind, sizes: Sizes) -> list[World]:
    """Return the worlds in which a database is measured, the empty one first."""
    found = [
        World(ALONE, 0, lambda _place, _sizes: None),
        World(BEHIND, sizes.waiting, _behind),
        World(ELSEWHERE, sizes.waiting, _elsewhere),
        World(FINISHED, sizes.finished, _finished),
    ]
    return [*found, World(SNAPSHOT, 0, lambda _place, _sizes: None, transaction=True)] if kind.open_snapshot else found


@contextmanager
def growths(kind: Kind, sizes: Sizes, tell: Callable[[Label], None]) -> Iterator[list[Contestant]]:
    """Make all worlds and yield a contestant for each; remove them at the end."""
    with ExitStack() as stack:
        contestants = []
        for world in worlds(kind, sizes):
            label = Label(GROWTH, OURS, kind.default.name, WORKERS, world.shown)
            tell(label)
            place = stack.enter_context(kind.empty()).make_tables()
            world.furnish(place, sizes)
            contestants.append(Contestant(label, partial(drain_first, place, world, sizes)))
        contestants[0].run()  # Not counted: the first drain of a run came out up to a third slower.
        yield contestants


def drain_first(place: Place, world: World, sizes: Sizes) -> Sample:
    """Push more than are counted, let a node drain them, and remove the rest."""
    count, durability = sizes.grown, place.kind.default
    with place.looking() as look, ExitStack() as stack:
        if world.transaction:
            other = stack.enter_context(place.looking())
            for statement in place.kind.open_snapshot:
                other.exec_driver_sql(statement)
        manager = stack.enter_context(QueueManager(settings=place.settings(durability)))
        manager.pause_queue(QUEUE)
        fill(manager, count + max(count // 2, _FEWEST_MORE))
        place.kind.tidy(place)
        done = finished(look)
        with running_node(place, durability, WORKERS) as processes:
            before, server, began = cpu_of(processes), place.server_cpu(), _now()
            manager.resume_queue(QUEUE)
            await_finished(look, done + count, look_every=0.02)
            manager.pause_queue(QUEUE)  # What waits behind are copies, whose payloads nobody can open.
            cpu, server = cpu_of(processes) - before, place.server_cpu() - server
            more = finished(look) - done
        _remove_rest(look)
        return Sample(count, _span(look, began, count), cpu * count / more, server * count / more)


def _now() -> int:
    return time.time_ns() // 1000


def _remove_rest(look: Connection) -> None:
    soon = jobs.c.ready_at < _now() + _FAR_OFF // 2
    look.execute(jobs.delete().where(jobs.c.queue == QUEUE, soon))


def _span(look: Connection, began: int, count: int) -> float:
    """Return the seconds from the first start after ``began`` to the finish of the last that is counted."""
    new = history.c.started_at >= began
    first = look.execute(select(history.c.started_at).where(new).order_by(history.c.started_at).limit(1)).scalar_one()
    last = select(history.c.finished_at).where(new, history.c.state == COMPLETED).order_by(history.c.finished_at)
    return float(look.execute(last.limit(1).offset(count - 1)).scalar_one() - first) / 1e6


# --- what the worlds are filled with ---------------------------------------------------------------------------------


def _behind(place: Place, sizes: Sizes) -> None:
    with _template(place) as (look, row):
        _copy(look, place, jobs, sizes.waiting, row, queue=QUEUE, ready_at=row["ready_at"] + _FAR_OFF)


def _elsewhere(place: Place, sizes: Sizes) -> None:
    each = sizes.waiting // len(_OTHER_QUEUES)
    with _template(place) as (look, row):
        for number, queue in enumerate(_OTHER_QUEUES):
            _copy(look, place, jobs, each, row, skip=number * each, queue=queue, ready_at=row["ready_at"] - _AGO)


def _finished(place: Place, sizes: Sizes) -> None:
    with _template(place) as (look, row):
        then = row["ready_at"] - _AGO
        final = {"state": COMPLETED, "lease": 1, "attempt": 1, "started_at": then, "payload": None, "run_us": 20}
        _copy(look, place, history, sizes.finished, row, queue=QUEUE, finished_at=then, **final)


@contextmanager
def _template(place: Place) -> Iterator[tuple[Connection, dict[str, Any]]]:
    """Push a job into every queue, so that their lanes are known; lend a connection with a job's columns."""
    with QueueManager(settings=place.settings(place.kind.default)) as manager:
        for queue in (QUEUE, *_OTHER_QUEUES):
            manager.pause_queue(queue)
            manager.push(Nothing(PAYLOAD), queue=queue)
        with place.looking() as look:
            row = look.execute(select(jobs).where(jobs.c.queue == QUEUE)).mappings().one()
            look.execute(jobs.delete())
            yield look, dict(row)
        place.kind.tidy(place)


def _copy(
    look: Connection, place: Place, table: Table, count: int, row: dict[str, Any], skip: int = 0, **changed: Any
) -> None:
    """Make copies of a row in a table, a microsecond apart, with ascending ids below all that are pushed."""
    values = {name: value for name, value in {**row, **changed}.items() if name in table.c and name != "id"}
    names = list(values)
    times = {"ready_at", "finished_at", "started_at"} & set(changed)
    wanted: list[Any] = [text(f"{place.kind.id_of_number} AS id")]
    for name in names:
        value = literal(values[name], table.c[name].type)
        wanted.append(value + text("n") if name in times else value)
    numbers = text(f"{_numbers(count + skip)} AS numbers")
    chosen = text(f"n >= {skip} AND n < {skip + count}")
    source = select(*wanted).select_from(numbers).where(chosen).order_by(text("n"))
    look.execute(insert(table).from_select(["id", *names], source))


def _numbers(below: int) -> str:
    """Return SQL for the numbers from 0, at least up to ``below``: a product of digits, which every database has."""
    places = range(len(str(below)))
    added = " + ".join(f"{10**place} * p{place}.d" for place in places)
    return f"(SELECT {added} AS n FROM {' CROSS JOIN '.join(f'{_DIGIT} AS p{place}' for place in places)})"

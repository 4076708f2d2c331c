"""Many jobs at once, by COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import psycopg
from sqlalchemy import Dialect

from taskqueue.drivers.postgresql_binding import integers, names, uuids
from taskqueue.drivers.postgresql_link import HotCursor, Link
from taskqueue.drivers.prepared import prepare
from taskqueue.drivers.statements import arrays
from taskqueue.drivers.tables import history
from taskqueue.drivers.tables import jobs as jobs_table
from taskqueue.drivers.values import NewJob

Lane = tuple[str, int]

_COPY: Final = f"COPY {jobs_table.name} ({', '.join(NewJob._fields)}) FROM STDIN (FORMAT BINARY)"


class Bulk:
    """The statements that insert many jobs, each within a transaction that its caller holds."""

    def __init__(self, dialect: Dialect) -> None:
        self._insert_lanes = prepare(arrays.INSERT_LANES, dialect).sql
        self._known = prepare(arrays.KNOWN, dialect).sql
        self._insert_tags = prepare(arrays.INSERT_TAGS, dialect).sql
        self._types = [_type_of(dialect, name) for name in NewJob._fields]

    def begin(self, link: Link, jobs: Sequence[NewJob], lanes: Sequence[Lane]) -> set[bytes]:
        """Begin the transaction, note lanes, and return which jobs are stored already; in one round trip."""
        known = link.hot("known")
        with link.one_trip():
            for statement in link.begin:
                link.execute(statement)
            if lanes:
                ranks = integers([rank for _, rank in lanes])
                link.hot("lanes").execute(self._insert_lanes, [names([queue for queue, _ in lanes]), ranks])
            known.execute(self._known, [uuids([job.id for job in jobs])])
        return {job_id for (job_id,) in known.fetchall()}

    def insert(self, link: Link, jobs: Sequence[NewJob]) -> None:
        """Insert jobs that are not stored yet."""
        with HotCursor(link) as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(self._types)
            for job in jobs:
                copy.write_row(job)

    def tag(self, link: Link, tags: Sequence[tuple[str, bytes]]) -> None:
        """Note tags of jobs, each once."""
        if tags:
            values = [names([label for label, _ in tags]), uuids([job_id for _, job_id in tags])]
            link.hot("tags").execute(self._insert_tags, values)


def _type_of(dialect: Dialect, column: str) -> str:
    return str(jobs_table.c[column].type.compile(dialect)).partition("(")[0].lower()


def is_known_id(error: psycopg.Error) -> bool:
    """Say whether another transaction has stored one of the ids meanwhile."""
    return error.diag.constraint_name == f"{jobs_table.name}_pkey"


def is_finished_id(error: psycopg.Error) -> bool:
    """Say whether a job that ends has finished already: it came in a second time."""
    return error.diag.constraint_name == f"{history.name}_pkey"

"""Whether the tables are the ones that this release knows; cheap, and without Alembic."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from taskqueue.drivers.tables import metadata
from taskqueue.errors import SchemaError

REVISIONS: Final = ("0001",)
"""Every revision that was ever released, oldest first; the last one is what this release works with."""

VERSION_TABLE: Final = "tq_alembic_version"

_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


class Fit(StrEnum):
    """How the tables fit this release."""

    CURRENT = "current"
    MISSING = "missing"
    OLDER = "older"
    NEWER = "newer"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The revision that the database is at (None: there are no tables) and the one that this release needs."""

    fit: Fit
    current: str | None
    needed: str = REVISIONS[-1]
    others: tuple[str, ...] = ()
    """Tables of another application, where none of ours are there."""


def read_status(connection: Connection) -> SchemaStatus:
    """Look which tables there are. Changes nothing."""
    there = set(inspect(connection).get_table_names())
    if VERSION_TABLE in there:
        current = connection.execute(select(_version.c.version_num)).scalar()
        if current is not None:
            return SchemaStatus(_fit_of(current), current)
    others = tuple(sorted(there - set(metadata.tables) - {VERSION_TABLE}))
    return SchemaStatus(Fit.FOREIGN if others else Fit.MISSING, None, others=others)


def _fit_of(revision: str) -> Fit:
    if revision == REVISIONS[-1]:
        return Fit.CURRENT
    return Fit.OLDER if revision in REVISIONS else Fit.NEWER


def refuse_misfit(status: SchemaStatus, address: str, *, allowed: Collection[Fit] = (Fit.CURRENT,)) -> None:
    """Raise `SchemaError` with the sentence that fits, unless the status is among those ``allowed``."""
    if status.fit in allowed:
        return
    sentences = {
        Fit.MISSING: f"{address} holds no tables of taskqueue: run `worker db:upgrade`",
        Fit.OLDER: (
            f"{address} is at revision {status.current}, this release needs {status.needed}:"
            " stop the nodes and run `worker db:upgrade`"
        ),
        Fit.NEWER: (
            f"{address} is at revision {status.current}, this release knows {status.needed} at most; nothing was"
            " changed: install the release that upgraded the database"
        ),
        Fit.FOREIGN: (
            f"{address} holds another application's tables ({_named(status.others)}) and none of taskqueue; nothing was"
            " changed: choose another database"
        ),
    }
    raise SchemaError(sentences[status.fit])


def _named(tables: Collection[str], most: int = 3) -> str:
    shown = ", ".join(sorted(tables)[:most])
    return shown if len(tables) <= most else f"{shown} and {len(tables) - most} more"


def drop_version(connection: Connection) -> None:
    """Forget which revision the database is at."""
    _version.drop(connection, checkfirst=True)

"""What several statements are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from sqlalchemy import (
    CTE,
    BindParameter,
    Boolean,
    ColumnElement,
    Insert,
    Integer,
    Select,
    Table,
    bindparam,
    column,
    literal_column,
    values,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from taskqueue.drivers import tables
from taskqueue.drivers.tables import history, jobs

COUNTED: Mapping[str, bool] = {"preserve_rowcount": True}
"""Options for an INSERT whose count of rows is asked for: without them some dialects forget it with the cursor."""
LIVE_STATES_THAT_WAIT = (tables.PENDING, tables.DELAYED, tables.BLOCKED)
CARRIED = tuple(column.name for column in history.c if column.name in jobs.c and column.name != "payload")
"""The columns that a job carries from its push into history, apart from its payload."""


def constant(value: int) -> ColumnElement[int]:
    """Return a number spelled out in the text: a bound one would not match a partial index, and costs a parameter."""
    return literal_column(str(value), Integer)


def in_state(table: Table, *codes: int) -> ColumnElement[bool]:
    """Return the condition that a row of ``table`` is in one of these states, spelled out."""
    if len(codes) == 1:
        return table.c.state == constant(codes[0])
    return table.c.state.in_([constant(code) for code in codes])


class same(FunctionElement[bool]):  # noqa: N801 - reads like the functions of SQLAlchemy
    """The condition ``same(column, value)``: equal, and to be looked up in the index of ``column`` row by row.

    With a plain equality of two columns a plan may join in another way, and does where the statistics know of no rows:
    it read all of 20,000 jobs for each of 12. To one server the value is given as an array of one, which is no
    condition to join by; the others look it up anyway.
    """

    name = "same"
    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        """Stay as it is: where a truth is a number it would be compared with 1."""
        del against
        return self


@compiles(same)
def _equal(element: Any, compiler: Any, **options: Any) -> str:
    column, value = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} = {value}"


@compiles(same, "postgresql")
def _in_an_array_of_one(element: Any, compiler: Any, **options: Any) -> str:
    column, value = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} = ANY (ARRAY[{value}])"


def none_found(looked_for: Select[Any]) -> ColumnElement[bool]:
    """Return the condition that a correlated query finds nothing, looked up in an index row by row.

    A NOT EXISTS may be joined in another way, and was where the statistics knew of no rows: each node that was to be
    forgotten read all running jobs. What is asked for must not be null.
    """
    return looked_for.limit(constant(1)).offset(constant(0)).scalar_subquery().is_(None)


def given(table: Table, name: str, parameter: str | None = None) -> BindParameter[Any]:
    """Return a parameter with the type of a column."""
    return bindparam(parameter or name, type_=table.c[name].type)


def insert_into(table: Table, dialect: str) -> Any:
    """Return an INSERT that can say what happens on a conflict, for a dialect by name."""
    # Only the dialect in use is loaded: each of them costs a tenth of a second.
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    return insert(table)


def speaks_mysql(statement: Any) -> bool:
    """Say whether an INSERT from `insert_into` speaks of ``ON DUPLICATE KEY`` and not of ``ON CONFLICT``."""
    return hasattr(statement, "on_duplicate_key_update")


def unless_there(statement: Any, key: Sequence[str]) -> Insert:
    """Let an INSERT from `insert_into` pass over rows whose ``key`` is there already, and count the others."""
    statement = statement.execution_options(**COUNTED)
    if speaks_mysql(statement):
        # A row that was updated to what it is counts as one found, as if it had been inserted; an ignored one does not.
        return statement.prefix_with("IGNORE")  # type: ignore[no-any-return]
    return statement.on_conflict_do_nothing(index_elements=list(key))  # type: ignore[no-any-return]


def listed(name: str, table: Table, fields: Sequence[str], rows: int) -> CTE:
    """Return a list of ``rows`` rows as a table, with the types of ``table`` and parameters named ``field_row``."""
    types = [table.c[each].type for each in fields]
    row_by_row = [
        tuple(bindparam(f"{each}_{row}", type_=kind) for each, kind in zip(fields, types, strict=True))
        for row in range(rows)
    ]
    columns = [column(each, kind) for each, kind in zip(fields, types, strict=True)]
    return values(*columns, name=name).data(row_by_row).cte(name)

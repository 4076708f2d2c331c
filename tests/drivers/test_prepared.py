from __future__ import annotations

import pytest
from sqlalchemy import Column, Delete, Integer, MetaData, Table, bindparam, delete, select, update
from sqlalchemy.engine.default import DefaultDialect

from taskqueue.drivers.prepared import Prepared, PreparedBatch

table = Table("t", MetaData(), Column("a", Integer), Column("b", Integer))
dialect = DefaultDialect(paramstyle="qmark")


def test_parameters_are_taken_from_a_tuple_in_the_order_of_the_text() -> None:
    statement = select(table).where(table.c.b == bindparam("second"), table.c.a == bindparam("first"))

    prepared = Prepared(statement, dialect)

    assert prepared.names == ("second", "first")
    assert prepared.picker(("first", "second"))((1, 2)) == (2, 1)


def test_a_bound_constant_is_refused() -> None:
    with pytest.raises(ValueError, match="constants"):
        Prepared(update(table).values(a=table.c.a + 1), dialect)


def test_a_batch_whose_parameters_come_in_another_order_is_refused() -> None:
    def build(rows: int) -> object:
        return select(*[bindparam(f"{name}_{row}", type_=Integer) for name in ("a", "b") for row in range(rows)])

    with pytest.raises(ValueError, match="row by row"):
        PreparedBatch(build, dialect, ("a", "b")).text(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", PreparedBatch.LENGTHS)
def test_the_text_of_a_batch_is_the_one_that_would_be_compiled(rows: int) -> None:
    def build(rows: int) -> Delete:
        return delete(table).where(table.c.a.in_([bindparam(f"a_{row}", type_=Integer) for row in range(rows)]))

    assert PreparedBatch(build, dialect, ("a",)).text(rows) == Prepared(build(rows), dialect).sql

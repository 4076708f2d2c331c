from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, select, update
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
        PreparedBatch(build, dialect, ("a", "b"))  # type: ignore[arg-type]

"""Core statements compiled once, to be run on the database driver's own cursor.

A Core execution costs about 130 microseconds more than the same text on the cursor; on the way of a job that is dear.
So hot statements are built in Core like every other, compiled once for the dialect, and then run as text with
positional parameters. Values are handed over as they are: only types that need no conversion may be bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Dialect
from sqlalchemy.sql import ClauseElement

Row = tuple[Any, ...]
Bind = Callable[[Iterable[Any]], list[Any]]
"""Turns values into the form that the database's driver binds fastest."""


class Prepared:
    """The text of a statement and the names of its positional parameters, in order."""

    __slots__ = ("names", "sql")

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        positions: Sequence[str] | None = getattr(compiled, "positiontup", None)
        self.names = tuple(positions or ())
        constants = {name for name, value in compiled.params.items() if value is not None}
        if constants:
            raise ValueError(f"a prepared statement must spell its constants out, bound here: {sorted(constants)}")

    def picker(self, fields: Sequence[str]) -> Callable[[Sequence[Any]], Row]:
        """Return a function that takes the parameters, in order, out of a tuple with these ``fields``."""
        indexes = [fields.index(name) for name in self.names]
        if indexes == list(range(len(fields))):
            return tuple
        if len(indexes) == 1:
            only = indexes[0]
            return lambda values: (values[only],)
        return itemgetter(*indexes)


@cache
def prepare(statement: ClauseElement, dialect: Dialect) -> Prepared:
    """Return ``statement`` compiled for ``dialect``, the same object each time."""
    return Prepared(statement, dialect)


class PreparedBatch:
    """A statement over a list of rows, in a few lengths.

    One statement over 100 rows costs half of the same statement run 100 times: what it opens it opens once. A list is
    cut into pieces of these lengths, the longest first. Only the texts for one row and for two are compiled, when they
    are first needed; what the second row adds is repeated for the others.
    """

    LENGTHS: Final = (128, 64, 32, 16, 8, 4, 2, 1)

    __slots__ = ("_bind", "_build", "_dialect", "_fields", "_texts")

    def __init__(
        self, build: Callable[[int], ClauseElement], dialect: Dialect, fields: Sequence[str], bind: Bind = list
    ) -> None:
        self._build = build
        self._dialect = dialect
        self._fields = fields
        self._bind = bind
        self._texts: dict[int, str] = {}

    def run(self, cursor: Any, rows: Sequence[Row]) -> int:
        """Run the statement over all of ``rows`` and return how many rows it changed."""
        texts = self._texts or self._compile()
        changed = start = 0
        while start < len(rows):
            length = next(length for length in self.LENGTHS if length <= len(rows) - start)
            values = self._bind(chain.from_iterable(rows[start : start + length]))
            cursor.execute(texts[length], values)
            changed += cursor.rowcount
            start += length
        return changed

    def text(self, length: int) -> str:
        """Return the statement for one of the lengths."""
        return (self._texts or self._compile())[length]

    def _compile(self) -> dict[int, str]:
        one, two = (Prepared(self._build(rows), self._dialect) for rows in (1, 2))
        if list(two.names) != [f"{name}_{row}" for row in range(2) for name in self._fields]:
            raise ValueError("the parameters of a batch must come row by row, in the order of its fields")
        pairs = enumerate(zip(one.sql, two.sql, strict=False))
        at = next((position for position, (left, right) in pairs if left != right), len(one.sql))
        added = two.sql[at : at + len(two.sql) - len(one.sql)]
        if one.sql[:at] + added + one.sql[at:] != two.sql:
            raise ValueError("a second row must only add to the text of a batch")
        self._texts = {length: one.sql[:at] + added * (length - 1) + one.sql[at:] for length in self.LENGTHS}
        return self._texts

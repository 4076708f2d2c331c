"""Core statements compiled once, to be run on the database driver's own cursor.

A Core execution costs about 130 microseconds more than the same text on the cursor; on the way of a job that is dear.
So hot statements are built in Core like every other, compiled once for the dialect, and then run as text with
positional parameters. Values are handed over as they are: only types that need no conversion may be bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Dialect
from sqlalchemy.sql import ClauseElement

Row = tuple[Any, ...]


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
    """A statement over a list of rows, compiled for a few lengths.

    One statement over 100 rows costs half of the same statement run 100 times: what it opens it opens once. A list is
    filled up to the next length with rows of nulls, which the statement must pass over.
    """

    LENGTHS: Final = (1, 8, 32, 128)

    __slots__ = ("_build", "_dialect", "_texts", "_width")

    def __init__(self, build: Callable[[int], ClauseElement], dialect: Dialect, fields: Sequence[str]) -> None:
        self._build = build
        self._dialect = dialect
        self._width = len(fields)
        self._texts: dict[int, str] = {}
        expected = [f"{name}_{row}" for row in range(2) for name in fields]
        if list(Prepared(build(2), dialect).names) != expected:
            raise ValueError("the parameters of a batch must come row by row, in the order of its fields")

    def run(self, cursor: Any, rows: Sequence[Row]) -> int:
        """Run the statement over all of ``rows`` and return how many rows it changed."""
        changed = 0
        for start in range(0, len(rows), self.LENGTHS[-1]):
            part = rows[start : start + self.LENGTHS[-1]]
            length = next(length for length in self.LENGTHS if length >= len(part))
            values = list(chain.from_iterable(part))
            values += [None] * ((length - len(part)) * self._width)
            cursor.execute(self._text(length), values)
            changed += cursor.rowcount
        return changed

    def _text(self, length: int) -> str:
        text = self._texts.get(length)
        if text is None:
            text = self._texts[length] = Prepared(self._build(length), self._dialect).sql
        return text

"""Tables and lists of facts: Rich on a terminal, plain aligned text in a pipe; an id is never cut in either."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.record import iso

from .output import clean, is_terminal, write

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
_NARROWEST = 10
"""Characters to which a column that may fold is narrowed before each row becomes a block of its own."""
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``folds`` where its text may go on in the next line, ``spare`` where a narrow terminal can do without.

    ``styles`` are Rich's, by cell.
    """

    title: str
    folds: bool = False
    spare: bool = False
    right: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)


def write_table(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows of text, numbers, times and None.

    On a terminal times are ages; a table that is too wide loses its spare columns, is narrowed at those that fold, and
    at last written as one block for each row. In a pipe times are ISO 8601, and there is neither colour nor wrapping.
    """
    terminal = is_terminal()
    cells = [[text_of(value, ages=terminal) for value in row] for row in rows]
    if terminal:
        _write_rich(columns, cells)
    else:
        _write_plain([[column.title for column in columns], *cells], [column.right for column in columns])


def write_facts(facts: Mapping[str, Any]) -> None:
    """Write names and values, one to a line; values fold on a terminal."""
    pairs = [(name, with_age(value)) for name, value in facts.items()]
    if not is_terminal():
        _write_plain([list(pair) for pair in pairs], [False, False])
        return
    console, label = _console(), max(len(name) for name, _ in pairs) + _GAP
    for name, value in pairs:
        _write_fact(console, name, value, label)


def text_of(value: Any, *, ages: bool = False) -> str:
    """Return a cell's text: times as ISO 8601 to the second, or as an age such as ``3m ago``."""
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, datetime):
        return age(value) if ages else str(iso(value.replace(microsecond=0)))
    return clean(str(value))


def with_age(value: Any) -> str:
    """Return the text of a cell, after a time with its age in brackets."""
    return f"{text_of(value)} ({age(value)})" if isinstance(value, datetime) else text_of(value)


def age(at: datetime) -> str:
    """Return how long ago ``at`` was, or in how long it will be, in its largest unit."""
    seconds = (SYSTEM_CLOCK.now() - at).total_seconds()
    span = span_text(abs(seconds))
    return f"{span} ago" if seconds >= 0 else f"in {span}"


def span_text(seconds: float) -> str:
    """Return a length of time in its largest unit: ``42s``, ``3m``, ``5h``, ``12d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def _write_plain(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        write((" " * _GAP).join(padded).rstrip())


def _write_rich(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    console = _console()
    needed = [index for index, column in enumerate(columns) if not column.spare]
    for kept in (range(len(columns)), needed):
        some, rows = [columns[index] for index in kept], [[row[index] for index in kept] for row in cells]
        widths = _fitted(some, rows, console.width)
        if widths is not None:
            _write_grid(console, some, rows, widths)
            return
    _write_blocks(console, columns, cells)


def _write_grid(
    console: Console, columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: Sequence[int]
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            Text(column.title),
            width=width,
            overflow="fold",
            no_wrap=not column.folds,
            justify="right" if column.right else "left",
        )
    for row in cells:
        table.add_row(*(Text(cell, column.styles.get(cell, "")) for cell, column in zip(row, columns, strict=True)))
    console.print(table)


def _fitted(columns: Sequence[Column], cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return the width of each column, narrowing those that fold; None where the table cannot fit."""
    from rich.cells import cell_len

    widths = [
        max([cell_len(column.title), *(cell_len(row[index]) for row in cells)]) for index, column in enumerate(columns)
    ]
    excess = sum(widths) + _GAP * (len(columns) - 1) - room
    while excess > 0:
        narrowable = [index for index, column in enumerate(columns) if column.folds and widths[index] > _NARROWEST]
        if not narrowable:
            return None
        widest = max(narrowable, key=lambda index: widths[index])
        widths[widest] -= 1
        excess -= 1
    return widths


def _write_blocks(console: Console, columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    """Write the first cell of each row alone and the others below it, for a narrow terminal."""
    from rich.text import Text

    label = max(len(column.title) for column in columns[1:]) + _GAP
    for row in cells:
        console.print(Text(row[0], "bold"), overflow="fold")
        for column, cell in zip(columns[1:], row[1:], strict=True):
            _write_fact(console, column.title, cell, label, indent="  ")


def _write_fact(console: Console, name: str, value: str, label: int, indent: str = "") -> None:
    from rich.cells import cell_len
    from rich.text import Text

    line = Text().append(indent + name.ljust(label), "dim")
    if len(line) + cell_len(value) > console.width:  # a value that would be broken has a line of its own
        console.print(line)
        line = Text(indent)
    console.print(line.append(value), overflow="fold")


def _console() -> Console:
    from rich.console import Console

    return Console(
        highlight=False, markup=False, emoji=False, width=shutil.get_terminal_size().columns, legacy_windows=False
    )

"""What commands write: text for people, one JSON document for programs, notes on standard error.

Everything that comes from data passes `clean`, so that a queue's name or an error's message can neither move the
cursor, nor change the terminal's title, nor turn text around.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

import typer

from taskqueue.errors import UsageError
from taskqueue.record import iso

PROGRAM = "worker"


def clean(text: str) -> str:
    r"""Return ``text`` in one line that a terminal shows and does not obey.

    Control characters (ESC among them), line breaks, bidirectional and other invisible controls, and lone surrogates
    are written as escapes such as ``\x1b``. Square brackets stay: nothing here is read as markup.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def write(text: str = "") -> None:
    """Write a line of our own making to standard output."""
    sys.stdout.write(f"{text}\n")


def write_json(document: Any) -> None:
    """Write the one JSON document of a command: ASCII alone, so that no terminal is moved by it."""
    write(json.dumps(document, indent=2, default=plain))


def note(sentence: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"{PROGRAM}: {clean(' '.join(sentence.split()))}\n")


def is_terminal() -> bool:
    """Say whether a person reads standard output."""
    return sys.stdout.isatty()


def confirm(what: str, *, yes: bool) -> bool:
    """Ask whether to go ahead with ``what``; ``--yes`` answers beforehand. False means that the person declined.

    Raises `UsageError` where nobody can be asked.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what}; add --yes to go ahead")
    agreed = typer.confirm(f"{clean(what)}. Go ahead?", err=True)
    if not agreed:
        note("nothing was changed")
    return agreed


def counted(number: int, noun: str) -> str:
    """Return ``1 job`` or ``1,200 jobs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(value: Any) -> Any:
    """Return a payload's value in a form that JSON has."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Iterable):
        return sorted(value, key=repr)
    return str(value)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

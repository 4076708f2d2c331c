"""``key:generate``: a new encryption key."""

from __future__ import annotations

import typer

from ..application import Command, examples
from ..output import write

EXAMPLES = examples(
    "worker key:generate",
    "(umask 077; worker key:generate > queue.key); export ENCRYPTION_KEY_FILE=queue.key",
)


def register(app: typer.Typer) -> None:
    """Add ``key:generate``."""
    app.command("key:generate", cls=Command, epilog=EXAMPLES)(key_generate)


def key_generate() -> None:
    """Print a new encryption key, alone on one line.

    Nothing is stored. Keep the key in a file of mode 0600 that ENCRYPTION_KEY_FILE names, and a copy apart from the
    database: without the key nobody can read the payloads.
    """
    from taskqueue.payload import generate_key

    write(generate_key())

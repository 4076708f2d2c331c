"""The application: its commands, and how an error becomes one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_group

from taskqueue import __version__
from taskqueue.errors import TaskQueueError, did_you_mean

from .application import CommandGroup, help_width
from .output import PROGRAM, clean, note, write

COMMANDS = (
    "help",
    "list",
    "config_show",
    "db_reset",
    "db_status",
    "db_upgrade",
    "doctor",
    "key_generate",
    "key_status",
    "node_drain",
    "node_list",
    "queue_cancel",
    "queue_failed",
    "queue_flush",
    "queue_forget",
    "queue_list",
    "queue_pause",
    "queue_purge",
    "queue_push",
    "queue_resume",
    "queue_retry",
    "queue_show",
    "queue_status",
    "queue_test",
    "queue_work",
)
"""The modules of ``commands``: a command is added by its file there and its line here."""

INTERRUPTED = 130
CLOSED_PIPE = 141
_USAGE = 2
_DEBUG = "--debug"
_SECRET_FLAGS = {
    "--encryption-key": "ENCRYPTION_KEY or a key file (ENCRYPTION_KEY_FILE)",
    "--key": "ENCRYPTION_KEY or a key file (ENCRYPTION_KEY_FILE)",
    "--password": "DB_PASSWORD or DATABASE_URL",
    "--database": "DATABASE_URL",
    "--database-url": "DATABASE_URL",
    "--url": "DATABASE_URL",
}
"""What a command line must not carry, since every user of the machine can read it, and where it belongs."""


class Worker(CommandGroup):
    """The commands of ``worker``."""

    modules = COMMANDS


app = typer.Typer(cls=Worker, add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def worker(
    ctx: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version.")] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show where an error came from.")] = False,
) -> None:
    """Work with the task queue."""
    del debug  # taken out of the words before they come here, and declared for the help
    if version:
        write(f"taskqueue {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        write(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; an error is one line on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, debug = _without_debug(words)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(words)
        sys.stdout.flush()
        return code
    except BaseException as error:
        if debug and not isinstance(error, typer.Exit):
            traceback.print_exc()
        return _answer(error)


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out wherever it stands, so that it can be added to the end of a line that failed."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != _DEBUG]
    return kept + words[end:], len(kept) < end


def _invoke(words: list[str]) -> int:
    group = get_group(app)
    with group.make_context(PROGRAM, words, terminal_width=help_width()) as ctx:
        code = group.invoke(ctx)
    return code if isinstance(code, int) else 0


def _answer(error: BaseException) -> int:
    """Say what happened, if it has to be said, and return the exit code."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return _close_quietly()
    if isinstance(error, TaskQueueError):
        note(str(error))
        return error.exit_code
    if isinstance(error, typer.TyperException):
        note(_usage_sentence(error))
        return _USAGE
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        note(f"{error.strerror}{where}; {_DEBUG} shows where")
        return 1
    if isinstance(error, Exception):
        # The text of a foreign error may hold anything, a payload or a password included.
        note(f"this should not have happened: {type(error).__name__}; {_DEBUG} shows where")
        return 1
    raise error


def _usage_sentence(error: Any) -> str:
    """Return the parser's refusal in our words, with the command to look at."""
    option = getattr(error, "option_name", None)
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path.removeprefix(PROGRAM).strip() if ctx is not None else ""
    hint = f"`{PROGRAM} help {path}` shows what it takes" if path else f"`{PROGRAM} list` shows all commands"
    if option in _SECRET_FLAGS:
        return f"there is no option {option}, since others could read it there: use {_SECRET_FLAGS[option]}"
    if hasattr(error, "possibilities") and option is not None:
        known = [each for param in ctx.command.params for each in param.opts] if ctx is not None else []
        return f"there is no option {clean(str(option))}{did_you_mean(str(option), known) or f'; {hint}'}"
    sentence = error.format_message().rstrip(".")
    return f"{sentence[:1].lower()}{sentence[1:]}; {hint}"


def _close_quietly() -> int:
    """Give standard output a place to go, so that the interpreter's last flush says nothing either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE

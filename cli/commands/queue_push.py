"""``queue:push``: push one job."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from taskqueue.errors import UsageError
from taskqueue.job_options import JobOptions
from taskqueue.options import convert, option_table
from taskqueue.settings import WorkerSettings

from ..application import Command, examples
from ..options import with_options
from ..output import write, write_json
from ..session import open_manager, read_settings

EXAMPLES = examples(
    'worker queue:push TestJob --payload \'{"task": "hello"}\'',
    "worker queue:push shop.jobs.SendEmail --import shop.jobs --payload @mail.json --queue emails --priority high",
    "echo '{\"sleep\": 2}' | worker queue:push TestJob --payload - --delay 30s",
)
LARGEST_PAYLOAD = 16 * 1024 * 1024
"""Bytes of JSON text that are read at all; what may be stored is bounded by the queue itself."""


def register(app: typer.Typer) -> None:
    """Add ``queue:push``."""
    app.command("queue:push", cls=Command, epilog=EXAMPLES)(queue_push)


@with_options(WorkerSettings, only=("imports",), into="modules")
@with_options(JobOptions, into="options")
def queue_push(
    *,
    options: Mapping[str, Any],
    modules: Mapping[str, Any],
    job_class: Annotated[str, typer.Argument(metavar="CLASS", help="Name or alias of the job class.")],
    payload: Annotated[
        str | None,
        typer.Option("--payload", metavar="JSON|@FILE|-", help="The payload: JSON, a file with JSON, or - for stdin."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Push one job and print its id.

    The class must be known here: a jobs.py or jobs/ in the working directory is imported, or what --import names.
    """
    declared = option_table(JobOptions)
    chosen = {
        name: convert(declared[name], value, declared[name].flag, error=UsageError) for name, value in options.items()
    }
    content = read_payload(payload)
    settings = read_settings({"worker": modules})
    job = _known_class(job_class, settings.worker.imports)(content, **chosen)
    with open_manager({"worker": modules}) as manager:
        handle = manager.push(job)
        if as_json:
            write_json(handle.record().to_json())
        else:
            write(str(handle.id))


def read_payload(given: str | None) -> Any:
    """Return the payload that ``--payload`` stands for; raise `UsageError` where it is no JSON."""
    if given is None:
        return None
    place, text = _payload_text(given)
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{place} is not JSON: {error.msg.lower()} at line {error.lineno}, column {error.colno}; "
            "write text in double quotes, and the whole in single quotes for the shell"
        ) from None
    except RecursionError:
        raise UsageError(f"{place} is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{place} cannot be a payload: {error}") from None


def _known_class(name: str, modules: tuple[str, ...]) -> Any:
    from taskqueue.registry import REGISTRY, import_jobs

    import_jobs(modules)
    return REGISTRY.get(name)


def _payload_text(given: str) -> tuple[str, str]:
    if given == "-":
        return "standard input", _decoded("standard input", sys.stdin.buffer.read(LARGEST_PAYLOAD + 1))
    if not given.startswith("@"):
        return "--payload", given
    path = Path(given[1:])
    try:
        with path.open("rb") as file:
            return str(path), _decoded(str(path), file.read(LARGEST_PAYLOAD + 1))
    except OSError as error:
        raise UsageError(f"--payload names the file {path}, which cannot be read: {error.strerror}") from None


def _decoded(place: str, content: bytes) -> str:
    if len(content) > LARGEST_PAYLOAD:
        raise UsageError(f"{place} holds more than {LARGEST_PAYLOAD:,} bytes: store large data elsewhere and name it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{place} is not text in UTF-8: byte {error.start + 1} cannot be read") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON readers keep the last of two members of one name without a word; a payload shall say one thing."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object names a member twice")
    return members

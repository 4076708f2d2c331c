"""``queue:show``: everything about one job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..application import Command, examples
from ..output import clean, plain, write, write_json
from ..records import job_document, job_facts
from ..session import open_manager
from ..tables import text_of, write_facts

if TYPE_CHECKING:
    from taskqueue.record import Attempt, JobRecord

EXAMPLES = examples(
    "worker queue:show 019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c",
    "worker queue:show 019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c --payload --result",
    "worker queue:show 019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c --json",
)


def register(app: typer.Typer) -> None:
    """Add ``queue:show``."""
    app.command("queue:show", cls=Command, epilog=EXAMPLES)(queue_show)


def queue_show(
    *,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    payload: Annotated[bool, typer.Option("--payload", help="Also open and show the payload.")] = False,
    result: Annotated[bool, typer.Option("--result", help="Also open and show the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Show a job with its failed attempts.

    Payload and result are sealed in the database and shown only when asked for.
    """
    with open_manager() as manager:
        record = manager.get_job(job_id)
        opened = _opened(record, payload=payload, result=result)
    if as_json:
        write_json(job_document(record) | opened)
        return
    write_facts(job_facts(record))
    for attempt in record.attempts:
        _write_attempt(attempt)
    for name, value in opened.items():
        _write_section(name, json.dumps(value, indent=2, ensure_ascii=False, default=plain))


def _opened(record: JobRecord, *, payload: bool, result: bool) -> dict[str, Any]:
    opened = {}
    if payload:
        opened["payload"] = record.payload
    if result:
        opened["result"] = record.result
    return opened


def _write_attempt(attempt: Attempt) -> None:
    node = f" on node {attempt.node_id}" if attempt.node_id is not None else ""
    title = f"attempt {attempt.attempt}: {attempt.reason}{node}, {text_of(attempt.finished_at)}"
    error = attempt.error
    _write_section(title, "" if error is None else error.traceback.rstrip() or str(error))


def _write_section(title: str, text: str) -> None:
    """Write text that has lines of its own, each of them cleaned."""
    write()
    write(f"{clean(title)}:" if text else clean(title))
    for line in text.splitlines():
        write(f"  {clean(line)}")

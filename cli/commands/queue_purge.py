"""``queue:purge``: remove finished jobs that nobody will ask for any more."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.errors import UsageError, did_you_mean
from taskqueue.job_options import parse_queue
from taskqueue.options import flag_layer, option, resolve, shown
from taskqueue.states import FINAL, State

from ..application import Command, examples
from ..filters import parse_states
from ..options import with_options
from ..output import confirm, counted, write, write_json
from ..session import open_manager

if TYPE_CHECKING:
    from taskqueue.drivers.base import Driver
    from taskqueue.drivers.retention import Purge

EXAMPLES = examples(
    "worker queue:purge --older-than 30d",
    "worker queue:purge --older-than 7d --state completed --queue emails",
    "worker queue:purge --keep 1000 --yes",
)
_FINISHED = tuple(state.value for state in State if state in FINAL)


def parse_finished(value: Any) -> tuple[str, ...]:
    """Return states in which a job has finished; text is split at commas."""
    states = parse_states(value)
    for state in states:
        if state not in _FINISHED:
            near = did_you_mean(state, _FINISHED)
            raise UsageError(f"{shown(state)} is none of {', '.join(_FINISHED)}: only finished jobs are purged{near}")
    return states


@dataclass(frozen=True, slots=True)
class Purging:
    """What may go."""

    older_than: float | None = option(
        None,
        help="Only jobs that finished longer ago, such as 12h or 30d.",
        unit="seconds",
        minimum=0,
        expects="an age such as 12h or 30d",
        metavar="AGE",
    )
    state: tuple[str, ...] = option(
        (),
        help=f"Only this state ({', '.join(_FINISHED)}); may be given several times.",
        parse=parse_finished,
        metavar="STATE",
    )
    queue: str | None = option(None, help="Only this queue.", parse=parse_queue, metavar="NAME")
    keep: int | None = option(
        None,
        help="Leave the last so many finished jobs of each queue, whatever their age.",
        minimum=0,
        expects="a whole number from 0 up",
    )


def register(app: typer.Typer) -> None:
    """Add ``queue:purge``."""
    app.command("queue:purge", cls=Command, epilog=EXAMPLES)(queue_purge)


@with_options(Purging)
def queue_purge(
    *,
    given: Mapping[str, Any],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> int:
    """Remove finished jobs for good.

    The number of jobs is shown first. They go in small batches beside running nodes, with their tags and attempts; the
    statistics stay. Nodes do the same by themselves, as the settings retention_completed and retention_failed say.
    """
    wanted = resolve(Purging, [flag_layer(Purging, given)]).value
    if wanted.older_than is None and wanted.keep is None:
        raise UsageError("say what may go: --older-than with an age such as 30d, --keep with a number, or both")
    with open_manager() as manager:
        purge = _purge(manager.driver, wanted)
        number = purge.count()
        if number and not confirm(f"queue:purge removes {counted(number, 'finished job')}", yes=yes):
            return 1
        removed = _remove(purge, number) if number else 0
    if as_json:
        write_json({"removed": removed})
    else:
        write(f"{counted(removed, 'job')} removed." if number else "No finished job matches.")
    return 0


def _purge(driver: Driver, wanted: Purging) -> Purge:
    from taskqueue.drivers.retention import purge_of

    states = [State(each) for each in wanted.state]
    return purge_of(
        driver,
        SYSTEM_CLOCK,
        older_than=wanted.older_than,
        states=states,
        queue=wanted.queue,
        keep=wanted.keep,
    )


def _remove(purge: Purge, number: int) -> int:
    from taskqueue.drivers.retention import rest

    removed, began, never = 0, SYSTEM_CLOCK.monotonic(), threading.Event()
    for batch in purge.batches():
        removed += batch
        _show(removed, number)
        began = rest(SYSTEM_CLOCK, never, began)
    _show(None, number)
    return removed


def _show(removed: int | None, number: int) -> None:
    """Show on a terminal how far it is; None wipes that out again."""
    if not sys.stderr.isatty():
        return
    line = "" if removed is None else f"{removed:,} of {number:,} removed"
    sys.stderr.write(f"\r{line}\x1b[K")
    sys.stderr.flush()

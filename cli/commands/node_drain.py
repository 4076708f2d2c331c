"""``node:drain``: have nodes finish what they run and stop."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.errors import TaskQueueError, UsageError, WaitTimeout

from ..application import Command, examples
from ..output import counted, write
from ..session import open_manager

if TYPE_CHECKING:
    from taskqueue.manager import QueueManager

EXAMPLES = examples("worker node:drain 12", "worker node:drain web-3 --wait 60", "worker node:drain --all")
DEAD = "dead"
LOOK_EVERY = 0.2
"""Seconds between two looks at nodes that were asked to stop; they answer at their next beat."""


def register(app: typer.Typer) -> None:
    """Add ``node:drain``."""
    app.command("node:drain", cls=Command, epilog=EXAMPLES)(node_drain)


def node_drain(
    *,
    nodes: Annotated[list[str] | None, typer.Argument(metavar="NODE", help="Nodes, by id or by name.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every node that lives.")] = False,
    wait: Annotated[
        float | None,
        typer.Option("--wait", metavar="S", min=0, help="Wait until they have stopped, at most this many seconds."),
    ] = None,
) -> None:
    """Ask nodes to finish what they run and stop, wherever they are.

    Each learns of it at its next beat, and then does as after a first SIGTERM: it takes no more jobs, gives running
    ones its grace to finish and hands back the rest.
    """
    if bool(nodes) == everyone:
        raise UsageError("name the nodes to drain, or give --all for every one that lives; not both")
    with open_manager() as manager:
        asked = manager.drain_nodes(*(nodes or ()), everyone=everyone)
        write(f"Asked {counted(len(asked), 'node')} to stop{_listed(asked)}.")
        if wait is not None and asked:
            _await_end(manager, set(asked), wait)
            _refuse_dead(manager, set(asked))
            write("Stopped.")


def _listed(nodes: Sequence[int]) -> str:
    return f": {', '.join(map(str, nodes))}" if nodes else ""


def _await_end(manager: QueueManager, asked: set[int], seconds: float) -> None:
    deadline, never = SYSTEM_CLOCK.monotonic() + seconds, threading.Event()
    while left := sorted(asked & {node["id"] for node in manager.get_worker_health()}):
        if SYSTEM_CLOCK.monotonic() >= deadline:
            raise WaitTimeout(
                f"after {seconds:g} s still at work: node {', '.join(map(str, left))}; the request stands, and"
                " node:list shows how far they are"
            )
        SYSTEM_CLOCK.wait(never, LOOK_EVERY)


def _refuse_dead(manager: QueueManager, asked: set[int]) -> None:
    """Raise where one of these nodes did not stop but was declared dead: its process may still run for a while."""
    everyone = manager.get_worker_health(everyone=True)
    dead = [str(node["id"]) for node in everyone if node["id"] in asked and node["state"] == DEAD]
    if dead:
        raise TaskQueueError(
            f"declared dead before stopping: node {', '.join(dead)}; others take over what it ran, and if its process"
            " still lives it ends as soon as it learns of it: look at it on its host"
        )

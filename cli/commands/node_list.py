"""``node:list``: the nodes and how they stand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..application import Command, examples
from ..output import write, write_json
from ..session import open_manager
from ..tables import Column, span_text, write_table

EXAMPLES = examples("worker node:list", "worker node:list --all --json")
STATE_STYLES = {"alive": "green", "quiet": "yellow", "draining": "yellow", "dead": "red", "stopped": "dim"}
COLUMNS = (
    Column("id", right=True),
    Column("name", folds=True),
    Column("host", folds=True, spare=True),
    Column("pid", right=True, spare=True),
    Column("state", styles=STATE_STYLES),
    Column("beat", right=True),
    Column("up since", spare=True),
    Column("workers", right=True),
    Column("busy", right=True),
    Column("in hand", right=True),
    Column("pm", spare=True),
    Column("queues", folds=True),
)


def register(app: typer.Typer) -> None:
    """Add ``node:list``."""
    app.command("node:list", cls=Command, epilog=EXAMPLES)(node_list)


def node_list(
    *,
    everyone: Annotated[bool, typer.Option("--all", help="Also nodes that have stopped or died.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """List the nodes, with their workers and their last beat.

    What a node says of its workers is as old as its last beat.
    """
    with open_manager() as manager:
        nodes = manager.get_worker_health(everyone=everyone)
    if as_json:
        write_json({"nodes": nodes})
    elif nodes:
        write_table(COLUMNS, [_row(node) for node in nodes])
    else:
        write("No node is running." if not everyone else "No node has run so far.")


def _row(node: dict[str, Any]) -> list[Any]:
    lives = node["stopped_at"] is None
    return [
        node["id"],
        node["name"],
        node["host"],
        node["pid"],
        node["state"],
        f"{span_text(node['seconds_since_beat'])} ago",
        node["started_at"],
        _workers(node) if lives else None,
        node.get("busy") if lives else None,
        node.get("in_hand") if lives else None,
        node.get("pm"),
        " ".join(node.get("queues", ())),
    ]


def _workers(node: dict[str, Any]) -> str:
    """Return the number of processes, and how many jobs each of them runs at a time where that is more than one."""
    workers, concurrency = node.get("workers"), node.get("concurrency", 1)
    return f"{workers} x {concurrency}" if concurrency > 1 else str(workers)

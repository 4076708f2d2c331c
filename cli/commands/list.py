"""``list``: every command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..application import Command, examples
from ..output import write, write_json

EXAMPLES = examples("worker list", "worker list --json")


def register(app: typer.Typer) -> None:
    """Add ``list``."""
    app.command("list", cls=Command, epilog=EXAMPLES)(list_commands)


def list_commands(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """List the commands."""
    root = ctx.find_root()
    group: Any = root.command
    if as_json:
        commands = [{"name": name, "help": summary} for name, summary in group.summaries(root).items()]
        write_json({"commands": commands})
    else:
        write(root.get_help())

"""``help COMMAND``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..application import Command, examples
from ..output import write

EXAMPLES = examples("worker help", "worker help queue:work")


def register(app: typer.Typer) -> None:
    """Add ``help``."""
    app.command("help", cls=Command, epilog=EXAMPLES)(show_help)


def show_help(
    ctx: typer.Context,
    *,
    words: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="The command.")] = None,
) -> None:
    """Show how a command is used."""
    context = ctx.find_root()
    for word in words or []:
        group = context.command
        if not hasattr(group, "resolve_command"):
            break
        name, command, _ = group.resolve_command(context, [word])
        context = typer.Context(command, info_name=name, parent=context)
    write(context.get_help())

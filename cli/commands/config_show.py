"""``config:show``: every setting with the place that it came from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from taskqueue.conversion import value_text
from taskqueue.options import option_table
from taskqueue.settings import GROUPS, SettingRow, load_settings

from ..application import Command, examples
from ..output import note, write_json
from ..tables import Column, write_table

EXAMPLES = examples("worker config:show", "worker config:show --json", "WORKERS=4 worker config:show | grep workers")


def register(app: typer.Typer) -> None:
    """Add ``config:show``."""
    app.command("config:show", cls=Command, epilog=EXAMPLES)(config_show)


def config_show(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Show every setting and where it comes from.

    Secrets are masked. The order is: flags, environment, .env, taskqueue.toml, pyproject.toml, default.
    """
    loaded = load_settings()
    for warning in loaded.warnings:
        note(warning)
    rows = list(loaded.rows())
    if as_json:
        document: dict[str, dict[str, Any]] = {}
        for row in rows:
            document.setdefault(row.group, {})[row.option] = {"value": row.value, "source": row.source}
        write_json({"settings": document})
        return
    columns = [Column("setting"), Column("value", folds=True), Column("from", folds=True)]
    write_table(columns, [(f"{row.group}.{row.option}", _value(row), row.source) for row in rows])


def _value(row: SettingRow) -> str | None:
    declared = option_table(GROUPS[row.group])[row.option]
    return value_text(row.value, declared.unit) if row.value is not None else None

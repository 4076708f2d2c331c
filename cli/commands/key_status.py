"""``key:status``: which keys the database knows and which are loaded here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from taskqueue.clock import from_us

from ..application import Command, examples
from ..output import write, write_json
from ..session import log_notices, read_settings
from ..tables import Column, write_table

EXAMPLES = examples("worker key:status", "worker key:status --json")


def register(app: typer.Typer) -> None:
    """Add ``key:status``."""
    app.command("key:status", cls=Command, epilog=EXAMPLES)(key_status)


def key_status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Show the keys by which stored jobs are sealed.

    Keys are named by their ids; a key itself is never shown. Reads every stored job once to count them.
    """
    document = _read_keys()
    if as_json:
        write_json(document)
        return
    if not document["encryption"]:
        write("Encryption is off: payloads are stored in clear.")
    columns = [Column("key"), Column("use"), Column("loaded"), Column("jobs", right=True), Column("known since")]
    rows = [
        (key["key_id"], _use(key, document["active"]), "yes" if key["loaded"] else "no", key["jobs"], key["since"])
        for key in document["keys"]
    ]
    if rows:
        write_table(columns, rows)


def _read_keys() -> dict[str, Any]:
    from taskqueue.store import open_store

    store = open_store(read_settings())
    try:
        log_notices(store.notices)
        usage = store.driver.key_usage()
        rows = store.driver.keys()
        known = {row.key_id: row for row in rows}
        loaded = store.ring.ids if store.ring is not None else ()
        keys = [
            {
                "key_id": key_id,
                "state": known[key_id].state if key_id in known else None,
                "loaded": key_id in loaded,
                "jobs": usage.get(key_id, 0),
                "since": from_us(known[key_id].created_at) if key_id in known else None,
            }
            for key_id in dict.fromkeys([*known, *loaded, *usage])
        ]
        return {"encryption": store.ring is not None, "active": next(iter(loaded), None), "keys": keys}
    finally:
        store.close()


def _use(key: dict[str, Any], active: str | None) -> str:
    if key["key_id"] == active:
        return "seals and opens"
    return "opens" if key["loaded"] else "none here"

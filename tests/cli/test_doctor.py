"""``doctor``: a line for each check, what to do, an exit code for scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from taskqueue.payload import generate_key
from tests.databases import Database

from .conftest import Terminal, Worker


def test_an_unused_queue_is_well(worker: Worker) -> None:
    outcome = worker("doctor", "--json")
    assert outcome.document["level"] in ("ok", "warning")
    assert outcome.document["mended"] == []
    checks = {each["check"]: each for each in outcome.document["findings"]}
    assert {"reachable", "schema", "indexes", "version", "durability", "rights", "queues", "parked", "keys"} <= set(
        checks
    )
    assert set(checks["schema"]) == {"check", "level", "message", "fix"}
    assert checks["schema"]["fix"] is None


def test_each_check_is_a_line_and_each_fix_another_one(worker: Worker) -> None:
    worker("queue:test", "--jobs=2")
    lines = worker("doctor").out.splitlines()
    (queues,) = [number for number, line in enumerate(lines) if "no node serves default, where 2 jobs wait" in line]
    assert lines[queues].split()[:2] == ["!!", "queues"]
    assert lines[queues + 1].strip() == "-> run `worker queue:work default`"
    assert "warning" in lines[-1]
    assert any(line.split()[:2] == ["ok", "schema"] for line in lines)


def test_warnings_exit_with_0_and_errors_with_1(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker("queue:test", "--jobs=2")
    assert worker("doctor", "--json").document["level"] == "warning"
    monkeypatch.setenv("ENCRYPTION_KEY", generate_key())
    document = worker("doctor", "--json", code=1).document
    assert document["level"] == "error"
    (fault,) = [each for each in document["findings"] if each["level"] == "error"]
    assert fault["check"] == "keys"


def test_a_database_without_tables_is_an_error_and_stays_without(fresh: Worker, bare: Database) -> None:
    with bare.engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER)"))
    outcome = fresh("doctor", code=1)
    assert "db:upgrade" in outcome.out
    assert outcome.out.endswith("1 error.\n")
    assert fresh("doctor", "--fix", "--json", code=1).document["mended"] == []
    assert bare.tables() == {"orders"}


@pytest.mark.any_database
def test_where_there_is_no_database_yet_none_is_made(fresh: Worker, tmp_cwd: Path) -> None:
    assert "there is no database yet" in fresh("doctor").out
    assert list(tmp_cwd.iterdir()) == []


@pytest.mark.any_database
def test_a_server_that_does_not_answer_is_an_error(fresh: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("pgsql", "mysql"):
        monkeypatch.setenv("DATABASE_URL", f"{scheme}://nobody:secret@127.0.0.1:1/shop")
        monkeypatch.setenv("ENCRYPTION_KEY", generate_key())
        outcome = fresh("doctor", "--json", code=1)
        (fault,) = outcome.document["findings"]
        assert (fault["check"], fault["level"]) == ("reachable", "error")
        assert "secret" not in outcome.out + outcome.err


def test_fixing_makes_a_missing_index_and_says_so(worker: Worker) -> None:
    from taskqueue.drivers import open_driver
    from taskqueue.drivers.sql import SQLDriver
    from taskqueue.drivers.tables import history
    from taskqueue.settings import load_settings

    worker("queue:status")
    driver = open_driver(load_settings().settings.database.url)
    assert isinstance(driver, SQLDriver)
    (index,) = [each for each in history.indexes if each.name == "tq_history_age"]
    driver.write(index.drop)
    driver.close()
    assert "tq_history_age" in worker("doctor").out
    mended = worker("doctor", "--fix").out
    assert "mended  made the index tq_history_age" in mended
    assert "tq_history_age" not in worker("doctor").out


@pytest.mark.any_database
def test_on_a_terminal_signs_have_colours_and_without_them_words_are_enough(
    worker: Worker, terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskqueue.cli.main import main

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" not in worker("doctor").out
    shown = terminal(100)
    assert main(["doctor"]) == 0
    assert "\x1b[32mok\x1b[0m  schema" in shown.shown()

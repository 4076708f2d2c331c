"""Commands on the database, its keys and the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskqueue.payload import parse_key

from .conftest import Worker


def test_the_status_of_a_database_changes_nothing(fresh: Worker, tmp_cwd: Path) -> None:
    document = fresh("db:status", "--json", code=78).document
    assert document["schema"] == "missing"
    assert list(tmp_cwd.iterdir()) == []


def test_an_upgrade_makes_the_tables_and_a_second_one_nothing(fresh: Worker) -> None:
    assert "now has the tables of revision" in fresh("db:upgrade").out
    assert "nothing to do" in fresh("db:upgrade").out
    document = fresh("db:status", "--json").document
    assert document["schema"] == "current"
    assert document["revision"] == document["needed"]


def test_an_upgrade_lets_the_queue_be_used_in_production(fresh: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    fresh("queue:status", code=78)
    fresh("db:upgrade")
    fresh("queue:status")


def test_another_applications_database_is_shared_only_when_told(
    fresh: Worker, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_cwd / "shop.db")
    connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.close()
    monkeypatch.setenv("DB_PATH", "shop.db")
    fresh("db:upgrade", code=78)
    fresh("db:upgrade", "--share")
    assert fresh("db:status", "--json").document["schema"] == "current"


def test_a_reset_says_what_it_would_remove_and_needs_a_yes(worker: Worker) -> None:
    worker("queue:test", "--jobs=3")
    assert "db:reset removes 3 jobs from" in worker("db:reset", code=2).err
    assert worker("queue:status", "--json").document["totals"]["pending"] == 3
    worker("db:reset", "--yes")
    assert worker("queue:status", "--json").document["queues"] == {}


def test_a_new_key_is_one_bare_line_that_can_be_used(worker: Worker) -> None:
    outcome = worker("key:generate")
    assert outcome.err == ""
    assert len(outcome.out.splitlines()) == 1
    assert parse_key(outcome.out.strip(), production=True).warnings == ()
    assert worker("key:generate").out != outcome.out


def test_the_status_of_keys_names_and_counts_but_never_shows_them(worker: Worker, tmp_cwd: Path) -> None:
    worker("queue:test", "--jobs=2")
    outcome = worker("key:status", "--json")
    (key,) = outcome.document["keys"]
    assert outcome.document["encryption"] is True
    assert outcome.document["active"] == key["key_id"]
    assert {"loaded": True, "jobs": 2}.items() <= key.items()
    secret = (tmp_cwd / "storage" / "queue.db.key").read_text().strip().removeprefix("base64:")
    assert secret not in outcome.out + worker("key:status").out


def test_the_status_of_keys_tells_one_that_is_no_longer_first(
    worker: Worker, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker("queue:test", "--jobs=2")
    old = (tmp_cwd / "storage" / "queue.db.key").read_text().strip()
    monkeypatch.setenv("ENCRYPTION_KEY", f"{worker('key:generate').out.strip()},{old}")
    document = worker("key:status", "--json").document
    assert [(key["jobs"], key["loaded"]) for key in document["keys"]] == [(2, True), (0, True)]
    assert document["active"] == document["keys"][1]["key_id"]
    assert "seals and opens" in worker("key:status").out


def test_payloads_in_clear_are_said(worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_cwd: Path) -> None:
    monkeypatch.setenv("DB_PATH", "clear.db")
    monkeypatch.setenv("ENCRYPTION", "off")
    assert "encryption is off: payloads are stored in clear" in worker("queue:test", "--jobs=1").err
    document = worker("key:status", "--json").document
    assert (document["encryption"], document["active"]) == (False, None)


def test_every_setting_is_shown_with_its_source(worker: Worker, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "4")
    (tmp_cwd / "taskqueue.toml").write_text('log_level = "error"\n')
    settings = worker("config:show", "--json").document["settings"]
    assert settings["worker"]["workers"] == {"value": 4, "source": "environment WORKERS"}
    assert settings["general"]["log_level"] == {"value": "error", "source": "taskqueue.toml log_level"}
    assert settings["worker"]["grace"]["source"] == "default"
    assert "worker.workers" in worker("config:show").out


def test_secrets_are_masked(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:canary-4711@db.example.org/queue")
    monkeypatch.setenv("ENCRYPTION_KEY", "canary-4711-canary-4711-canary-1")
    for words in ([], ["--json"]):
        shown = worker("config:show", *words).out
        assert "canary" not in shown
        assert "me:***@db.example.org" in shown

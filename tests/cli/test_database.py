"""Commands on the database, its keys and the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskqueue.drivers import schema
from taskqueue.drivers.schema import VERSION_TABLE
from taskqueue.payload import parse_key
from tests.databases import Database

from .conftest import Worker


def test_the_status_of_a_database_changes_nothing(bare: Database, fresh: Worker, tmp_cwd: Path) -> None:
    document = fresh("db:status", "--json", code=78).document
    assert document["schema"] == "missing"
    assert list(tmp_cwd.iterdir()) == []
    assert bare.tables() == set()


def test_an_upgrade_makes_the_tables_and_a_second_one_nothing(bare: Database, fresh: Worker) -> None:
    assert "now has the tables of revision" in fresh("db:upgrade").out
    assert "nothing to do" in fresh("db:upgrade").out
    document = fresh("db:status", "--json").document
    assert document["schema"] == "current"
    assert document["revision"] == document["needed"]


def test_an_upgrade_lets_the_queue_be_used_in_production(
    bare: Database, fresh: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    fresh("queue:status", code=78)
    fresh("db:upgrade")
    fresh("queue:status")


def test_another_applications_database_is_refused_and_not_touched(bare: Database, fresh: Worker) -> None:
    bare.run("CREATE TABLE orders (id INTEGER)")
    for words in ("queue:status", "queue:work", "db:upgrade", "db:reset --yes"):
        assert "another application's tables (orders)" in fresh(*words.split(), code=78).err
    assert bare.tables() == {"orders"}
    assert fresh("db:status", "--json", code=78).document["others"] == ["orders"]


def test_another_applications_database_is_shared_only_when_told(bare: Database, fresh: Worker) -> None:
    bare.run("CREATE TABLE orders (id INTEGER)")
    fresh("db:upgrade", code=78)
    fresh("db:upgrade", "--share")
    assert fresh("db:status", "--json").document["schema"] == "current"
    fresh("db:reset", "--yes")
    assert "orders" in bare.tables()


def test_a_database_of_a_later_release_is_refused_and_not_changed(bare: Database, fresh: Worker) -> None:
    fresh("db:upgrade")
    bare.run(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for words in ("queue:status", "queue:work", "queue:test", "db:upgrade", "db:reset --yes"):
        assert "is at revision 9999, this release knows" in fresh(*words.split(), code=78).err
    assert fresh("db:status", "--json", code=78).document["schema"] == "newer"


def test_a_database_of_an_earlier_release_is_told_to_upgrade(
    bare: Database, fresh: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh("db:upgrade")
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9998"))
    for words in ("queue:status", "queue:work", "queue:test"):
        assert "stop the nodes and run `worker db:upgrade`" in fresh(*words.split(), code=78).err
    assert fresh("db:status", "--json", code=78).document["schema"] == "older"


def test_a_reset_says_what_it_would_remove_and_needs_a_yes(worker: Worker) -> None:
    worker("queue:test", "--jobs=3")
    assert "db:reset removes 3 jobs from" in worker("db:reset", code=2).err
    assert worker("queue:status", "--json").document["totals"]["pending"] == 3
    worker("db:reset", "--yes")
    assert worker("queue:status", "--json").document["queues"] == {}


@pytest.mark.any_database
def test_a_new_key_is_one_bare_line_that_can_be_used(worker: Worker) -> None:
    outcome = worker("key:generate")
    assert outcome.err == ""
    assert len(outcome.out.splitlines()) == 1
    assert parse_key(outcome.out.strip(), production=True).warnings == ()
    assert worker("key:generate").out != outcome.out


@pytest.mark.any_database
def test_the_status_of_keys_names_and_counts_but_never_shows_them(worker: Worker, tmp_cwd: Path) -> None:
    worker("queue:test", "--jobs=2")
    outcome = worker("key:status", "--json")
    (key,) = outcome.document["keys"]
    assert outcome.document["encryption"] is True
    assert outcome.document["active"] == key["key_id"]
    assert {"loaded": True, "jobs": 2}.items() <= key.items()
    secret = (tmp_cwd / "storage" / "queue.db.key").read_text().strip().removeprefix("base64:")
    assert secret not in outcome.out + worker("key:status").out


@pytest.mark.any_database
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


@pytest.mark.any_database
def test_payloads_in_clear_are_said(worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_cwd: Path) -> None:
    monkeypatch.setenv("DB_PATH", "clear.db")
    monkeypatch.setenv("ENCRYPTION", "off")
    assert "encryption is off: payloads are stored in clear" in worker("queue:test", "--jobs=1").err
    document = worker("key:status", "--json").document
    assert (document["encryption"], document["active"]) == (False, None)


@pytest.mark.any_database
def test_every_setting_is_shown_with_its_source(worker: Worker, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "4")
    (tmp_cwd / "taskqueue.toml").write_text('log_level = "error"\n')
    settings = worker("config:show", "--json").document["settings"]
    assert settings["worker"]["workers"] == {"value": 4, "source": "environment WORKERS"}
    assert settings["general"]["log_level"] == {"value": "error", "source": "taskqueue.toml log_level"}
    assert settings["worker"]["grace"]["source"] == "default"
    assert "worker.workers" in worker("config:show").out


@pytest.mark.any_database
def test_secrets_are_masked(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:canary-4711@db.example.org/queue")
    monkeypatch.setenv("ENCRYPTION_KEY", "canary-4711-canary-4711-canary-1")
    for words in ([], ["--json"]):
        shown = worker("config:show", *words).out
        assert "canary" not in shown
        assert "me:***@db.example.org" in shown

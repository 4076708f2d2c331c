"""What cannot be done ends with one line that names the input, an exit code, and nothing on standard output."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from .conftest import Worker

pytestmark = pytest.mark.any_database

UNKNOWN_ID = "019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c"
REFUSALS: tuple[tuple[str, int, str], ...] = (
    ("queue:wrok", 2, "there is no command 'queue:wrok'; did you mean queue:work"),
    ("queue", 2, "there are queue:cancel, queue:failed"),
    ("frobnicate", 2, "`worker list` shows all"),
    ("help queue:wrok", 2, "did you mean queue:work"),
    ("--frobnicate list", 2, "--frobnicate"),
    ("queue:work --workers=0", 2, "from 1 to 256, got '0'; to stop claiming use queue:pause"),
    ("queue:work --workers=abc", 2, "from 1 to 256, got 'abc'"),
    ("queue:work --workers=-4", 2, "got '-4'"),
    ("queue:work --workers=1.5", 2, "got '1.5'"),
    ("queue:work --workers=100000", 2, "from 1 to 256"),
    ("queue:work --memory=100XB", 2, "such as 50MB"),
    ("queue:work --timeout=0", 2, "--no-timeout"),
    ("queue:work --timeout=-1", 2, "--timeout: timeout must be"),
    ("queue:work --timeout=5 --no-timeout", 2, "not both"),
    ("queue:work --max-jobs=0", 2, "--max-jobs: max_jobs must be"),
    ("queue:work --wrkers=2", 2, "there is no option --wrkers; did you mean --workers"),
    ("queue:work --encryption-key=x", 2, "use ENCRYPTION_KEY or a key file"),
    ("queue:work --encryption-key x", 2, "use ENCRYPTION_KEY or a key file"),
    ("queue:status --database x", 2, "use DATABASE_URL"),
    ("queue:work a|b", 2, "1 to 64 letters, digits or any of _ - . :"),
    ("queue:work ../x", 2, "got '../x'"),
    ("queue:work * emails", 2, "'*' means every queue"),
    ("queue:status --queue a%b", 2, "1 to 64 letters"),
    ("queue:pause", 2, "missing argument 'QUEUE'; `worker help queue:pause`"),
    ("queue:pause a b", 2, "unexpected extra argument"),
    ("queue:test --jobs=-1", 2, "--jobs: jobs must be a whole number from 0 up, got '-1'"),
    ("queue:test --jobs=1e9", 2, "got '1e9'"),
    ("queue:test --jobs=1000000000", 2, "would push 1,000,000,000 jobs; add --yes"),
    ("queue:test --priority=999", 2, "low (1), normal (5), high (10), urgent (15)"),
    ("queue:test --delay=-30", 2, "--delay: delay must be seconds"),
    ("queue:push TestJb", 3, "did you mean TestJob"),
    ("queue:push TestJb", 3, "--import"),
    ("queue:push os.system", 3, "no job class 'os.system' is known here"),
    ("queue:push TestJob --payload {bad}", 2, "--payload is not JSON: "),
    ("queue:push TestJob --payload {bad}", 2, "at line 1, column 2"),
    ("queue:push TestJob --payload [NaN]", 2, "NaN is no JSON value"),
    ("queue:push TestJob --payload [1e999]", 2, ""),
    ('queue:push TestJob --payload {"a":1,"a":2}', 2, "names a member twice"),
    ("queue:push TestJob --payload @nothing.json", 2, "nothing.json, which cannot be read: No such file"),
    ("queue:push TestJob --max-attempts 0", 2, "--max-attempts: max_attempts must be"),
    ("queue:push TestJob --delay 5 --at 2026-12-24T18:00:00Z", 2, "only one of"),
    ("queue:push TestJob --import no.such.module", 78, "cannot import 'no.such.module'"),
    ("queue:list --state pendin", 2, "did you mean pending"),
    ("queue:list --limit 0", 2, "from 1 to 10000"),
    ("queue:list --since yesterday", 2, "an age such as 30m, 2h or 7d"),
    ("queue:list --since 2026-12-24", 2, "a time with its zone"),
    ("queue:show abc", 2, "'abc' is not a job id"),
    (f"queue:show {UNKNOWN_ID}", 3, f"there is no job {UNKNOWN_ID}"),
    (f"queue:retry {UNKNOWN_ID}", 3, f"there is no job {UNKNOWN_ID}"),
    (f"queue:cancel {UNKNOWN_ID}", 3, f"there is no job {UNKNOWN_ID}"),
    (f"queue:forget {UNKNOWN_ID}", 3, f"there is no job {UNKNOWN_ID}"),
    ("queue:retry", 2, "give their ids, a filter such as --queue, or --all"),
    (f"queue:cancel {UNKNOWN_ID} --all", 2, "not both"),
)
SETTINGS: tuple[tuple[dict[str, str], str, int, str], ...] = (
    ({"DB_CONNECTION": "oracle"}, "queue:status", 78, "one of sqlite, mysql"),
    ({"DB_PATH": "no/such/folder.db"}, "queue:status", 78, "does not exist"),
    ({"DB_PATH": "."}, "queue:status", 78, "is a folder"),
    ({"DATABASE_URL": "oracle://u:secret@h/d"}, "queue:status", 78, "DATABASE_URL"),
    ({"ENCRYPTION_KEY": ""}, "queue:status", 78, "key must be text that is not empty"),
    ({"ENCRYPTION_KEY": "a" * 31}, "queue:status", 78, "has 31 characters"),
    ({"ENCRYPTION_KEY": "base64:!!"}, "queue:status", 78, "is not base64"),
    ({"ENCRYPTION_KEY_FILE": "no.key"}, "queue:status", 78, "no.key does not exist"),
    ({"WORKERS": "many"}, "config:show", 78, "environment WORKERS: workers must be"),
)


def refused(outcome: Any, code: int, said: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("worker: ")
    assert said in outcome.err


@pytest.mark.parametrize(("line", "code", "said"), REFUSALS)
def test_a_line_that_cannot_be_meant_is_refused(line: str, code: int, said: str, worker: Worker) -> None:
    refused(worker(*line.split(" ") if "a|b" not in line else ("queue:work", "a b"), code=None), code, said)


@pytest.mark.parametrize("name", ["", "a" * 300, "a\nb", "\U0001f600"])
def test_a_queue_name_that_no_queue_can_have_is_refused(name: str, worker: Worker) -> None:
    refused(worker("queue:work", name, code=None), 2, "1 to 64 letters")


@pytest.mark.parametrize(("environment", "line", "code", "said"), SETTINGS)
def test_a_setting_that_does_not_fit_ends_the_command(
    environment: dict[str, str], line: str, code: int, said: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = worker(line, code=None)
    refused(outcome, code, said)
    assert "secret" not in outcome.err


def test_a_file_that_is_no_database_is_refused_and_not_touched(
    worker: Worker, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_cwd / "notes.txt").write_text("notes\n" * 10)
    monkeypatch.setenv("DB_PATH", "notes.txt")
    refused(worker("queue:status", code=None), 78, "it was not touched")
    assert (tmp_cwd / "notes.txt").read_text() == "notes\n" * 10


def test_the_database_of_another_application_is_refused_and_not_touched(
    worker: Worker, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(tmp_cwd / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.close()
    before = (tmp_cwd / "shop.db").read_bytes()
    monkeypatch.setenv("DB_PATH", "shop.db")
    for words in ("queue:status", "db:upgrade", "db:reset --yes"):
        refused(worker(*words.split(), code=None), 78, "another application's tables (orders)")
    assert (tmp_cwd / "shop.db").read_bytes() == before


def test_another_key_than_the_one_in_use_stops_the_command(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker("queue:test", "--jobs=1")
    monkeypatch.setenv("ENCRYPTION_KEY", worker("key:generate").out.strip())
    outcome = worker("queue:status", code=None)
    refused(outcome, 78, "the payloads here were sealed with key")


def test_a_bad_line_in_a_settings_file_is_named_by_its_number(worker: Worker, tmp_cwd: Path) -> None:
    (tmp_cwd / ".env").write_text("WORKERS=2\nnonsense secret\n")
    refused(worker("config:show", code=None), 78, ".env line 2: expected NAME=value")


def test_a_setting_that_looks_mistyped_is_a_warning_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_MEMORY_LIMT", "1")
    for words in ("queue:status", "config:show", "key:status", "db:status"):
        err = worker(words).err
        assert err.count("WORKER_MEMORY_LIMT") == 1
        assert "did you mean WORKER_MEMORY_LIMIT" in err


def test_a_readable_secret_is_a_warning_and_in_production_an_error(worker: Worker, tmp_cwd: Path) -> None:
    (tmp_cwd / ".env").write_text(f"ENCRYPTION_KEY={worker('key:generate').out}")
    (tmp_cwd / ".env").chmod(0o644)
    assert "other users can read it" in worker("config:show").err
    with (tmp_cwd / ".env").open("a") as file:
        file.write("ENVIRONMENT=production\n")
    refused(worker("config:show", code=None), 78, "other users can read it")


def test_control_characters_in_a_refusal_are_shown_and_not_obeyed(worker: Worker) -> None:
    outcome = worker("queue:\x1b]0;owned\x07", code=2)
    assert "\x1b" not in outcome.err
    assert "\\x1b" in outcome.err


def test_a_refused_payload_is_not_repeated(worker: Worker) -> None:
    outcome = worker("queue:push", "TestJob", "--payload", '{"card": 4111222233334444, oops', code=2)
    assert "4111" not in outcome.err


def test_debug_shows_where_an_error_came_from_wherever_it_stands(worker: Worker) -> None:
    for words in (["--debug", "queue:show", "abc"], ["queue:show", "abc", "--debug"]):
        outcome = worker(*words, code=2)
        assert "Traceback (most recent call last)" in outcome.err
        assert outcome.err.splitlines()[-1].startswith("worker: 'abc' is not a job id")


def test_every_reading_command_keeps_standard_output_to_one_document(worker: Worker) -> None:
    for words in ("queue:status", "queue:list", "queue:failed", "key:status", "db:status", "config:show", "list"):
        outcome = worker(words, "--json")
        assert isinstance(json.loads(outcome.out), dict), words

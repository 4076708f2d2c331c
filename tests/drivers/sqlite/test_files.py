from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from operator import methodcaller
from pathlib import Path

import pytest

from taskqueue.drivers import database_file, migrate, open_driver
from taskqueue.drivers.sqlite import SQLiteDriver
from taskqueue.drivers.values import JobFilter
from taskqueue.errors import ConfigurationError, SchemaError, StoreError
from tests.drivers.world import MovableClock, World


def content(path: Path) -> tuple[bytes, int]:
    return path.read_bytes(), path.stat().st_mtime_ns


# --- urls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite://", ":memory:", "sqlite:///:memory:", "sqlite:///"])
def test_memory_is_shared_by_the_threads_of_a_process(url: str, clock: MovableClock) -> None:
    import threading

    driver = open_driver(url, clock=clock)
    migrate.upgrade(driver)
    world = World(driver, clock)
    thread = threading.Thread(target=world.push)
    thread.start()
    thread.join()

    assert len(world.claim(world.node())) == 1
    driver.close()


def test_two_drivers_in_memory_are_two_databases(clock: MovableClock) -> None:
    first, second = open_driver("sqlite://", clock=clock), open_driver("sqlite://", clock=clock)
    migrate.upgrade(first)
    migrate.upgrade(second)
    World(first, clock).push()

    assert second.count(JobFilter()) == 0


def test_memory_outlives_a_close(clock: MovableClock) -> None:
    driver = open_driver("sqlite://", clock=clock)
    migrate.upgrade(driver)
    World(driver, clock).push()
    driver.close()

    assert driver.count(JobFilter()) == 1


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    migrate.upgrade("sqlite:///near.db")
    migrate.upgrade(f"sqlite:///{tmp_path}/far.db?serverVersion=3")

    assert {each.name for each in tmp_path.iterdir()} >= {"near.db", "far.db"}


def test_a_later_change_of_folder_does_not_move_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    migrate.upgrade("sqlite:///near.db")
    driver = open_driver("sqlite:///near.db")
    monkeypatch.chdir("/")

    driver.check_schema()
    driver.close()


@pytest.mark.parametrize("name", ["with space.db", "per%20cent.db", "has#hash.db", "ümläut 🗑.db", "a&b=c.db"])
def test_any_file_name_is_taken_as_it_is_written(tmp_path: Path, name: str) -> None:
    migrate.upgrade(f"sqlite:///{tmp_path}/{name}")

    assert (tmp_path / name).exists()


def test_the_file_of_a_url_is_told_as_it_is_written() -> None:
    assert database_file("sqlite:///storage/queue.db") == Path("storage/queue.db")
    assert database_file("sqlite:////srv/queue.db?x=1") == Path("/srv/queue.db")
    assert database_file("sqlite://") is None
    assert database_file("postgresql://host/name") is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://queue.db", "has no host"),
        ("sqlit:///queue.db", "did you mean sqlite"),
        ("queue.db", "no scheme"),
        ("mysql+pymysql://user:secret@host", "must name a database"),
        ("oracle://user:secret@host/db", "unknown scheme 'oracle'"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        open_driver(url)

    assert "secret" not in str(refused.value)


def test_a_durability_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="full, normal"):
        open_driver("sqlite://", durability="off")


# --- files --------------------------------------------------------------------------------------------------


def test_only_its_owner_may_read_the_database(world: World, path: Path) -> None:
    world.push()

    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"queue.db": 0o600, "queue.db-wal": 0o600, "queue.db-shm": 0o600}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/queue.db"
    for attempt in (migrate.upgrade, lambda url: open_driver(url).check_schema()):
        with pytest.raises(ConfigurationError, match=r"folder .*nowhere .*does not exist"):
            attempt(url)
    assert not (tmp_path / "nowhere").exists()


def test_a_missing_file_is_not_made_by_looking(tmp_path: Path) -> None:
    driver = open_driver(f"sqlite:///{tmp_path}/queue.db")

    with pytest.raises(SchemaError, match=r"does not exist: run `worker db:upgrade`"):
        driver.check_schema()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    for attempt in (migrate.upgrade, lambda url: open_driver(url).check_schema()):
        with pytest.raises(ConfigurationError, match="is a folder"):
            attempt(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("text", [b"just some notes\n" * 100, b"x", b"SQLite format 2\x00" + bytes(4096)])
def test_a_file_of_something_else_is_refused_and_not_touched(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(text)
    before = content(path)

    for attempt in (migrate.upgrade, migrate.reset, lambda url: open_driver(url).check_schema()):
        with pytest.raises(ConfigurationError, match="not an SQLite database"):
            attempt(f"sqlite:///{path}")
    assert content(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_applications_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    raw = sqlite3.connect(path)
    raw.executescript("CREATE TABLE customers (name TEXT); INSERT INTO customers VALUES ('a')")
    raw.close()
    before = content(path)

    for attempt in (migrate.upgrade, migrate.reset, lambda url: open_driver(url).check_schema()):
        with pytest.raises(SchemaError, match=r"another application's tables .customers."):
            attempt(f"sqlite:///{path}")
    with pytest.raises(SchemaError, match="another application's"):
        migrate.check_or_create(open_driver(f"sqlite:///{path}"))
    assert content(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_is_shared_with_an_application_on_request(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    raw = sqlite3.connect(path)
    raw.executescript("CREATE TABLE customers (name TEXT); INSERT INTO customers VALUES ('a')")

    migrate.upgrade(f"sqlite:///{path}", share=True)
    migrate.reset(f"sqlite:///{path}")

    open_driver(f"sqlite:///{path}").check_schema()
    assert raw.execute("SELECT name FROM customers").fetchall() == [("a",)]
    raw.close()


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "queue.db").touch()
    driver = open_driver(f"sqlite:///{tmp_path}/queue.db")

    migrate.check_or_create(driver)

    driver.check_schema()
    driver.close()


def test_a_database_that_cannot_be_written_says_so_and_can_be_read(sqlite: SQLiteDriver, world: World) -> None:
    world.push()
    sqlite.close()
    sqlite._location = replace(sqlite._location, uri=sqlite._location.uri.replace("mode=rw", "mode=ro"))

    for write in (world.push, world.driver.flush, lambda: world.driver.push_many([world.job()])):
        with pytest.raises(StoreError, match="is read-only"):
            write()
    assert len(world.everything()) == 1


def test_a_damaged_row_does_not_stop_the_reading_of_others(sqlite: SQLiteDriver, world: World) -> None:
    world.push()
    for value in ("state = 99", "attempt = NULL", "lease = -1"):
        change = f"UPDATE tq_jobs SET {value}"
        with pytest.raises(StoreError):
            sqlite.write(methodcaller("exec_driver_sql", change))

    assert len(world.everything()) == 1


# --- durability ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_the_log_is_flushed_as_the_durability_says(url: str, durability: str, level: int) -> None:
    driver = open_driver(url, durability=durability)
    assert isinstance(driver, SQLiteDriver)

    def pragma(name: str) -> object:
        return driver.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar())

    assert (pragma("synchronous"), pragma("journal_mode"), pragma("busy_timeout")) == (level, "wal", 0)
    driver.close()


def statements_of(driver: SQLiteDriver, work: object) -> list[str]:
    """Return the first words of every statement that ``work`` runs on this thread's connection."""
    seen: list[str] = []
    with driver._connections.use() as kept:
        raw = kept.raw
    raw.set_trace_callback(seen.append)
    work()  # type: ignore[operator]
    raw.set_trace_callback(None)
    return [text.split("(")[0].strip() for text in seen]


def test_a_push_is_one_statement(sqlite: SQLiteDriver, world: World) -> None:
    world.push()

    assert statements_of(sqlite, world.push) == ["INSERT INTO tq_jobs"]


def test_a_recorded_start_is_flushed_even_where_claims_are_not(url: str, clock: MovableClock) -> None:
    driver = open_driver(url, durability="normal", clock=clock)
    assert isinstance(driver, SQLiteDriver)
    world = World(driver, clock)
    world.push()
    node = world.node()
    claimed = world.claim_one(node)

    seen = statements_of(driver, lambda: driver.record_start(node, claimed.id, claimed.lease))

    assert [text.split(" SET")[0] for text in seen] == [
        "PRAGMA synchronous = FULL",
        "UPDATE tq_jobs",
        "PRAGMA synchronous = NORMAL",
    ]
    driver.close()


def test_nobody_is_locked_out_by_a_reader(sqlite: SQLiteDriver, world: World) -> None:
    world.driver.find(JobFilter())

    with sqlite._connections.use() as kept:
        assert not kept.raw.in_transaction


def test_a_closed_driver_leaves_one_file(world: World, path: Path) -> None:
    world.push()
    world.driver.close()

    assert list(path.parent.iterdir()) == [path]

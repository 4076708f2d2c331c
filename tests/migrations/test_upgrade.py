"""From an empty database to the tables of this release, and what is said where they do not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, MetaData, Table, create_engine, inspect, text

from taskqueue.drivers import migrate, open_driver, tables
from taskqueue.drivers.schema import REVISIONS, VERSION_TABLE, Fit
from taskqueue.errors import SchemaError
from tests.drivers.world import A_NEW_FILE, MovableClock, World

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture
def url(tmp_path: Path) -> str:
    return A_NEW_FILE.format(folder=tmp_path)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    migrate.upgrade(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


def our_tables(engine: Engine) -> set[str]:
    return {name for name in inspect(engine).get_table_names() if name.startswith("tq_")}


# --- the tables ---------------------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_that_the_code_knows(engine: Engine) -> None:
    assert our_tables(engine) == set(tables.metadata.tables) | {VERSION_TABLE}


@pytest.mark.parametrize("name", sorted(tables.metadata.tables))
def test_a_migrated_table_is_the_one_that_the_code_knows(engine: Engine, name: str, tmp_path: Path) -> None:
    (tmp_path / "direct").mkdir()
    direct = create_engine(A_NEW_FILE.format(folder=tmp_path / "direct"))
    tables.metadata.create_all(direct)

    assert described(engine, name) == described(direct, name)
    direct.dispose()


def described(engine: Engine, name: str) -> dict[str, object]:
    """Return everything that the database says of a table."""
    look = inspect(engine)
    columns = [(each["name"], str(each["type"]), each["nullable"], each["default"]) for each in look.get_columns(name)]
    indexes = {
        str(each["name"]): (
            each["column_names"],
            each["unique"],
            {key: str(value) for key, value in each.get("dialect_options", {}).items()},
        )
        for each in look.get_indexes(name)
    }
    checks = sorted((str(each["name"]), each["sqltext"]) for each in look.get_check_constraints(name))
    unique = sorted(tuple(each["column_names"]) for each in look.get_unique_constraints(name))
    return {
        "columns": columns,
        "key": look.get_pk_constraint(name)["constrained_columns"],
        "indexes": indexes,
        "checks": checks,
        "unique": unique,
        "options": look.get_table_options(name),
    }


def test_autogenerate_finds_nothing_left_to_do(engine: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_object": lambda _object, name, kind, *_: kind != "table" or name != VERSION_TABLE,
            },
        )
        assert compare_metadata(context, tables.metadata) == []


def test_the_release_knows_every_revision_and_needs_the_last() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrate.migrations_dir()))
    scripts = ScriptDirectory.from_config(config)

    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_current_head() == REVISIONS[-1]


def test_every_new_database_has_an_id_and_a_salt_of_its_own(tmp_path: Path) -> None:
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        address = A_NEW_FILE.format(folder=tmp_path / name)
        migrate.upgrade(address)
        found |= set(open_driver(address).installation())

    assert len(found) == 4


# --- up and down --------------------------------------------------------------------------------------------


def test_an_upgrade_says_what_was_there_and_does_nothing_twice(url: str) -> None:
    assert migrate.upgrade(url).fit is Fit.MISSING
    installation = open_driver(url).installation()

    assert migrate.upgrade(url).fit is Fit.CURRENT
    assert migrate.status(url).current == REVISIONS[-1]
    assert open_driver(url).installation() == installation


def test_a_downgrade_removes_every_table_and_an_upgrade_brings_them_back(engine: Engine, url: str) -> None:
    migrate.downgrade(url)
    assert our_tables(engine) <= {VERSION_TABLE}
    assert migrate.status(url).fit is Fit.MISSING

    migrate.upgrade(url)
    open_driver(url).check_schema()


def test_a_reset_leaves_no_job_and_no_other_table_is_touched(engine: Engine, url: str) -> None:
    clock = MovableClock()
    world = World(open_driver(url, clock=clock), clock)
    world.push()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE tq_mine (a INTEGER)"))
    installation = world.driver.installation()

    migrate.reset(url)

    assert world.everything() == []
    assert world.driver.installation() != installation
    assert "tq_mine" in our_tables(engine)


def test_a_migration_that_breaks_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("the power went")

    monkeypatch.setattr(os, "urandom", broken)
    with pytest.raises(RuntimeError, match="the power went"):
        migrate.upgrade(url)
    monkeypatch.undo()

    assert migrate.status(url).fit is Fit.MISSING
    engine = create_engine(url)
    assert our_tables(engine) == set()
    engine.dispose()


@pytest.mark.parametrize("processes", [2, 4])
def test_of_several_processes_that_upgrade_at_once_one_does_it(url: str, processes: int) -> None:
    command = [sys.executable, str(HERE / "upgrading_process.py"), url]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    outputs = [process.communicate(timeout=60) for process in started]

    assert [(process.returncode, error) for process, (_, error) in zip(started, outputs, strict=True)] == [
        (0, "")
    ] * processes
    open_driver(url).check_schema()


# --- what does not fit --------------------------------------------------------------------------------------


def at_revision(engine: Engine, revision: str) -> None:
    table = Table(VERSION_TABLE, MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        connection.execute(table.update().values(version_num=revision))


def test_missing_tables_are_said_with_the_command_that_makes_them(tmp_path: Path, url: str) -> None:
    (tmp_path / "queue.db").touch()

    with pytest.raises(SchemaError, match="run `worker db:upgrade`"):
        open_driver(url).check_schema()


def test_a_verb_on_missing_tables_says_what_to_run(tmp_path: Path, url: str) -> None:
    (tmp_path / "queue.db").touch()
    clock = MovableClock()
    world = World(open_driver(url, clock=clock), clock)

    for verb in (world.push, world.everything, lambda: world.claim(1), world.node, world.driver.promote):
        with pytest.raises(SchemaError, match="run `worker db:upgrade`"):
            verb()


def test_a_newer_database_is_refused_and_not_changed(engine: Engine, url: str) -> None:
    at_revision(engine, "9999")

    for attempt in (migrate.upgrade, migrate.reset, lambda url: open_driver(url).check_schema()):
        with pytest.raises(SchemaError, match=r"revision 9999, this release knows .* nothing was changed"):
            attempt(url)
    assert migrate.status(url).fit is Fit.NEWER


def test_an_older_database_is_told_to_upgrade(engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskqueue.drivers import schema

    monkeypatch.setattr(schema, "REVISIONS", (*REVISIONS, "9998"))

    with pytest.raises(SchemaError, match="stop the nodes and run `worker db:upgrade`"):
        open_driver(url).check_schema()
    with pytest.raises(SchemaError, match="db:upgrade"):
        migrate.check_or_create(open_driver(url))


def test_looking_at_the_schema_does_not_load_alembic(url: str) -> None:
    migrate.upgrade(url)
    script = f"""
import sys
from taskqueue.drivers import migrate, open_driver
open_driver({url!r}).check_schema()
print("alembic" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)

    assert found.stdout == "False\n"

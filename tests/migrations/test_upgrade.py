"""From an empty database to the tables of this release and back, and what is said where they do not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from taskqueue.drivers import migrate, open_driver, schema, tables
from taskqueue.drivers.base import Driver
from taskqueue.drivers.schema import REVISIONS, VERSION_TABLE, Fit
from taskqueue.errors import SchemaError
from tests.databases import Database
from tests.drivers.world import World

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def test_the_release_knows_every_revision_and_needs_the_last() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrate.migrations_dir()))
    scripts = ScriptDirectory.from_config(config)

    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_current_head() == REVISIONS[-1]


def test_every_new_database_has_an_id_and_a_salt_of_its_own(new_database: Callable[[], Database]) -> None:
    found = set()
    for _ in range(2):
        address = new_database().url
        migrate.upgrade(address)
        found |= set(installation_of(address))

    assert len(found) == 4


def check(driver: Driver) -> None:
    driver.check_schema()


def installation_of(url: str) -> tuple[bytes, bytes]:
    driver = open_driver(url)
    try:
        return driver.installation()
    finally:
        driver.close()


# --- up and down --------------------------------------------------------------------------------------------


def test_an_upgrade_says_what_was_there_and_does_nothing_twice(url: str) -> None:
    assert migrate.upgrade(url).fit is Fit.MISSING
    installation = installation_of(url)

    assert migrate.upgrade(url).fit is Fit.CURRENT
    assert migrate.status(url).current == REVISIONS[-1]
    assert installation_of(url) == installation


def test_a_downgrade_removes_every_table_and_an_upgrade_brings_them_back(migrated: Database, driver: Driver) -> None:
    migrate.downgrade(migrated.url)
    assert migrated.tables() <= {VERSION_TABLE}
    assert migrate.status(migrated.url).fit is Fit.MISSING

    migrate.upgrade(migrated.url)
    driver.check_schema()


def test_a_reset_leaves_no_job_and_no_other_table_is_touched(migrated: Database, world: World) -> None:
    world.push()
    migrated.run("CREATE TABLE tq_mine (a INTEGER)")
    installation = world.driver.installation()

    migrate.reset(migrated.url)

    assert world.everything() == []
    assert world.driver.installation() != installation
    assert "tq_mine" in migrated.tables()


@pytest.mark.needs("transactional_ddl")
def test_a_migration_that_breaks_leaves_nothing_behind(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("the power went")

    monkeypatch.setattr(os, "urandom", broken)
    with pytest.raises(RuntimeError, match="the power went"):
        migrate.upgrade(empty.url)
    monkeypatch.undo()

    assert migrate.status(empty.url).fit is Fit.MISSING
    assert empty.tables() == set()


class PowerCut(Exception):
    """What ends a migration before one of its statements."""


@contextmanager
def cut_off_before(number: int, of_these: str = "CREATE|INSERT|DROP|ALTER") -> Iterator[None]:
    """End whatever changes the database before its statement of this number, as a kill would."""
    left = number

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal left
        if statement.lstrip().split(maxsplit=1)[0].upper() in of_these.split("|"):
            left -= 1
            if left < 0:
                raise PowerCut

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", count)


@pytest.mark.slow
def test_a_migration_that_was_cut_off_anywhere_is_finished_by_the_next(migrated: Database, driver: Driver) -> None:
    """Where a server commits each change of a table by itself, half of the tables are left behind."""
    for number in (1, 3, 8, 15, 22):
        migrate.downgrade(migrated.url)
        with cut_off_before(number), pytest.raises(PowerCut):
            migrate.upgrade(migrated.url)
        assert migrate.status(migrated.url).fit is Fit.MISSING
        with pytest.raises(SchemaError, match="run `worker db:upgrade`"):
            driver.check_schema()

        migrate.upgrade(migrated.url)

        driver.check_schema()
        assert migrated.tables() == set(tables.metadata.tables) | {VERSION_TABLE}
        assert len(migrated.rows("SELECT id FROM tq_installation")) == 1
        assert len(migrated.rows(f"SELECT version_num FROM {VERSION_TABLE}")) == 1


@pytest.mark.slow
def test_a_reset_that_was_cut_off_anywhere_is_finished_by_the_next(migrated: Database, world: World) -> None:
    for number in (1, 8, 16, 24, 38):
        world.push()
        with cut_off_before(number), pytest.raises(PowerCut):
            migrate.reset(migrated.url)

        migrate.reset(migrated.url)

        world.driver.check_schema()
        assert world.everything() == []


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
    assert migrate.status(url).fit is Fit.CURRENT
    assert "missing\n" in [output for output, _ in outputs]


# --- to a later release ---------------------------------------------------------------------------------------

LATER = '''
"""A later release adds a column with a default."""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9998", "{last}", None, None


def upgrade() -> None:
    op.add_column("tq_jobs", sa.Column("later", sa.Integer, nullable=False, server_default=sa.text("7")))


def downgrade() -> None:
    op.drop_column("tq_jobs", "later")
'''


@pytest.fixture
def later_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a release with one more revision."""
    folder = shutil.copytree(migrate.migrations_dir(), tmp_path / "later", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9998_later.py").write_text(LATER.format(last=REVISIONS[-1]))
    monkeypatch.setattr(migrate, "migrations_dir", lambda: folder)
    monkeypatch.setattr(schema, "REVISIONS", (*REVISIONS, "9998"))


def test_an_upgrade_keeps_every_row(migrated: Database, world: World, request: pytest.FixtureRequest) -> None:
    node = world.node()
    done, live = world.push(), world.push(["tag"], queue="other")
    world.complete(node, world.claim(node, queues=["q"])[0])
    before = {name: migrated.rows(f"SELECT * FROM {name}") for name in tables.metadata.tables}
    request.getfixturevalue("later_release")

    assert migrate.status(migrated.url).fit is Fit.OLDER
    assert migrate.upgrade(migrated.url).current == REVISIONS[-1]
    assert migrate.status(migrated.url).fit is Fit.CURRENT

    after = {name: migrated.rows(f"SELECT * FROM {name}") for name in tables.metadata.tables}
    assert after.pop("tq_jobs") == [(*row, 7) for row in before.pop("tq_jobs")]
    assert after == before
    assert [row.id for row in world.everything()] == [live, done]
    assert [job.id for job in world.claim(node)] == [live]


def test_a_step_back_keeps_every_row(migrated: Database, world: World, later_release: None) -> None:
    migrate.upgrade(migrated.url)
    job_id = world.push()

    migrate.downgrade(migrated.url, REVISIONS[-1])

    assert migrate.status(migrated.url).current == REVISIONS[-1]
    assert [row.id for row in world.everything()] == [job_id]


# --- what does not fit --------------------------------------------------------------------------------------


def test_missing_tables_are_said_with_the_command_that_makes_them(empty: Database, driver: Driver) -> None:
    assert empty.tables() == set()

    with pytest.raises(SchemaError, match="run `worker db:upgrade`"):
        driver.check_schema()


def test_a_verb_on_missing_tables_says_what_to_run(empty: Database, world: World) -> None:
    assert empty.tables() == set()

    for verb in (world.push, world.everything, lambda: world.claim(1), world.node, world.driver.promote):
        with pytest.raises(SchemaError, match="run `worker db:upgrade`"):
            verb()


def test_a_newer_database_is_refused_and_not_changed(migrated: Database, driver: Driver) -> None:
    migrated.run(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")

    for attempt in (migrate.upgrade, migrate.reset, check):
        with pytest.raises(SchemaError, match=r"revision 9999, this release knows .* nothing was changed"):
            attempt(driver)
    assert migrate.status(driver).fit is Fit.NEWER


def test_an_older_database_is_told_to_upgrade(migrated: Database, driver: Driver, later_release: None) -> None:
    with pytest.raises(SchemaError, match="stop the nodes and run `worker db:upgrade`"):
        driver.check_schema()
    with pytest.raises(SchemaError, match="db:upgrade"):
        migrate.check_or_create(driver)


def test_another_applications_tables_are_left_alone(empty: Database, driver: Driver) -> None:
    empty.run("CREATE TABLE orders (id INTEGER)")

    for attempt in (migrate.upgrade, migrate.reset, migrate.check_or_create, check):
        with pytest.raises(SchemaError, match=r"another application's tables \(orders\)"):
            attempt(driver)
    assert empty.tables() == {"orders"}


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

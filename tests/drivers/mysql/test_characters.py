"""Every character can be stored, whatever the database was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskqueue.drivers import migrate
from taskqueue.drivers.values import JobFilter, tags_to_text
from tests.databases import SERVERS, Database, require
from tests.drivers.world import World

WORD = "漢字 🐇"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Return a database with the tables of this release, whose own texts are of one byte to the character."""
    server = SERVERS["mysql"]
    require(server)
    made = server.new(tmp_path)
    made.run("ALTER DATABASE CHARACTER SET latin1")
    migrate.upgrade(made.url)
    return made


def test_every_text_of_a_job_is_stored_where_the_database_itself_knows_few_characters(world: World) -> None:
    texts = {"queue": WORD, "job_class": WORD, "category": WORD, "tags": tags_to_text([WORD])}
    job_id = world.push([WORD], **texts)
    world.driver.pause(WORD, WORD)

    row = world.row(job_id)
    assert {name: getattr(row, name) for name in texts} == texts
    assert [row.id for row in world.driver.find(JobFilter(tag=WORD))] == [job_id]
    assert [(row.queue, row.note) for row in world.driver.queues()] == [(WORD, WORD)]


def test_no_column_depends_on_what_the_database_was_made_for(database: Database) -> None:
    found = database.rows(
        "SELECT DISTINCT CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name IN"
        " (SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'tq\\_%')"
        " AND CHARACTER_SET_NAME IS NOT NULL AND table_name NOT LIKE '%version%'"
    )
    assert found == [("utf8mb4", "utf8mb4_bin")]

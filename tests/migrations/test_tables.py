"""The tables that the migrations make are those that the code describes, on each database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, Index, inspect, text
from sqlalchemy.exc import DBAPIError

from taskqueue.drivers import tables
from taskqueue.drivers.schema import VERSION_TABLE
from tests.databases import Database
from tests.drivers.world import World


def test_the_migrations_make_the_tables_that_the_code_knows(migrated: Database) -> None:
    assert migrated.tables() == set(tables.metadata.tables) | {VERSION_TABLE}


def test_a_migrated_table_is_the_one_that_the_code_would_make(
    engine: Engine, new_database: Callable[[], Database]
) -> None:
    direct = new_database().engine
    tables.metadata.create_all(direct)

    for name in tables.metadata.tables:
        assert described(engine, name) == described(direct, name)


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
                "compare_type": type_differs,
                "compare_server_default": True,
                "include_object": lambda item, name, *_: (
                    name != VERSION_TABLE and tables.is_made_on(item, connection.dialect.name)
                ),
            },
        )
        assert compare_metadata(context, tables.metadata) == []


def type_differs(context: Any, _column: Any, _ours: Any, found: Any, wanted: Any) -> bool | None:
    """Say whether a column has another type; None leaves that to Alembic."""
    if wanted.compile(context.dialect) == "BLOB(4294967295)":  # asks for the longest type, which has a name of its own
        return str(found) != "LONGBLOB"
    return None


def test_an_index_has_the_columns_and_the_condition_that_the_code_names(engine: Engine) -> None:
    """Two databases that are alike may lack the same condition: here the code is asked, and not a database."""
    for table in tables.metadata.tables.values():
        wanted = {
            str(index.name): ([column.name for column in index.columns], bool(index.unique), condition(index, engine))
            for index in table.indexes
            if tables.is_made_on(index, engine.dialect.name)
        }
        assert {name: found for name, found in indexes_of(engine, table.name).items() if name in wanted} == wanted
        assert {found[0] for found in only_constraints(engine, table.name, wanted)} <= {"incarnation"}


def indexes_of(engine: Engine, table: str) -> dict[str, tuple[list[str | None], bool, str]]:
    return {
        str(each["name"]): (
            each["column_names"],
            bool(each["unique"]),
            str(each.get("dialect_options", {}).get(f"{engine.dialect.name}_where", "")).strip("()"),
        )
        for each in inspect(engine).get_indexes(table)
    }


def only_constraints(engine: Engine, table: str, wanted: Mapping[str, object]) -> list[list[str | None]]:
    """Return the columns of what some databases show as an index and the code declares as a unique column."""
    return [found[0] for name, found in indexes_of(engine, table).items() if name not in wanted]


def condition(index: Index, engine: Engine) -> str:
    """Return the condition of a partial index, or an empty text where it covers every row."""
    where = None
    if engine.dialect.name in index.dialect_options:
        where = index.dialect_options[engine.dialect.name].get("where")
    return "" if where is None else str(where)


@pytest.mark.parametrize("wrong", ["state = 4", "state = -1", "lease = -1", "attempt = -1"])
def test_the_database_refuses_a_live_job_in_an_impossible_state(migrated: Database, world: World, wrong: str) -> None:
    world.push()
    with pytest.raises(DBAPIError), migrated.engine.begin() as connection:
        connection.execute(text(f"UPDATE tq_jobs SET {wrong}"))


@pytest.mark.parametrize("wrong", [3, 7])
def test_the_database_refuses_a_finished_job_in_an_impossible_state(
    migrated: Database, world: World, wrong: int
) -> None:
    node = world.node()
    world.push()
    world.complete(node, world.claim_one(node))
    with pytest.raises(DBAPIError), migrated.engine.begin() as connection:
        connection.execute(text("UPDATE tq_history SET state = :wrong"), {"wrong": wrong})

"""Processes kill themselves at named moments, on each database: the next ones finish, and every invariant holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import gauntlet
from tests.chaos.gauntlet import MIGRATION_POINTS, NODE_POINTS, USER_POINTS
from tests.chaos.ground import Ground
from tests.chaos.invariants import judge
from tests.chaos.plan import Plan
from tests.chaos.points import COMMIT, IN_TEMPLATE, IN_WORKER, POINTS
from tests.chaos.scenes import Stage
from tests.databases import SERVERS

MIGRATIONS = [
    (name, point)
    for name, server in SERVERS.items()
    for point in MIGRATION_POINTS
    if server.capabilities.transactional_ddl or POINTS[point].when != COMMIT  # Elsewhere each change is its own.
]


def test_every_point_is_passed() -> None:
    of_nodes = [name for group in NODE_POINTS.values() for name, _ in group]
    assert sorted([*of_nodes, *USER_POINTS, *MIGRATION_POINTS]) == sorted([*POINTS, *IN_TEMPLATE, *IN_WORKER])


def pass_through(name: str, ground: Ground, folder: Path, run: Callable[[Stage], None]) -> None:
    stage = Stage(Plan(name, lease=6.0), ground, folder)
    try:
        run(stage)
        evidence = stage.end()
    finally:
        stage.storm.close()
    broken = {each.name: each.examples for each in judge(evidence) if each.broken}
    assert broken == {}, evidence.logs


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("group", NODE_POINTS)
def test_nodes_that_die_at_each_point_lose_nothing(group: str, name: str, ground: Ground, tmp_path: Path) -> None:
    pass_through(name, ground, tmp_path, lambda stage: gauntlet.run_nodes(stage, NODE_POINTS[group]))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_users_that_die_at_each_point_leave_all_or_nothing(name: str, ground: Ground, tmp_path: Path) -> None:
    pass_through(name, ground, tmp_path, gauntlet.run_users)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("name", "point"), MIGRATIONS)
def test_a_migration_that_dies_is_finished_by_the_next(name: str, point: str, ground: Ground, tmp_path: Path) -> None:
    pass_through(name, ground, tmp_path, lambda stage: gauntlet.run_migration(stage, point))

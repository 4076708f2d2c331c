"""Ground rules for every test: nothing of the developer's own settings, nothing written into the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OUR_NAMES = frozenset({"DATABASE_URL", "ENVIRONMENT", "APP_ENV", "MAX_WORKERS", "LOG_LEVEL", "LOG_FORMAT"})
OUR_PREFIXES = ("TASKQUEUE_", "DB_", "ENCRYPTION_", "WORKER_", "SCHEDULER_", "SERVER_")
FOR_TESTS = "TASKQUEUE_TEST_"
"""Where the servers for the tests are: the one prefix that is kept."""


def is_ours(name: str) -> bool:
    """Say whether the environment variable ``name`` would configure taskqueue."""
    return not name.startswith(FOR_TESTS) and (name in OUR_NAMES or name.startswith(OUR_PREFIXES))


def pytest_configure() -> None:
    for name in filter(is_ours, list(os.environ)):
        del os.environ[name]


@pytest.fixture
def tmp_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty folder of its own, so that no ``.env`` or database of the checkout is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path

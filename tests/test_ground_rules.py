"""The developer's own settings reach no test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import is_ours


def test_no_setting_of_the_developer_reaches_a_test() -> None:
    assert [name for name in os.environ if is_ours(name)] == []


@pytest.mark.parametrize("name", ["DATABASE_URL", "DB_PASSWORD", "ENCRYPTION_KEY", "WORKER_TIMEOUT", "TASKQUEUE_QUEUE"])
def test_a_name_that_configures_us_counts_as_ours(name: str) -> None:
    assert is_ours(name)


@pytest.mark.parametrize("name", ["PATH", "HOME", "CI", "TASKQUEUE_TEST_POSTGRES"])
def test_other_names_and_the_servers_for_tests_are_kept(name: str) -> None:
    assert not is_ours(name)


def test_a_test_can_run_in_an_empty_folder_of_its_own(tmp_cwd: Path) -> None:
    assert Path.cwd() == tmp_cwd.resolve()
    assert list(tmp_cwd.iterdir()) == []

"""G12: what a transactional handler writes, and its acknowledgement, are one transaction: effects are completed jobs.

At each moment of a run, a roll-back, a retry: tests/node/test_transactional.py; lost connections: tests/faults.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue import State
from tests.databases import Database
from tests.node.running import HERE, House, house_in, until

IMPORTS = ("node_jobs", "transactional_jobs")
JOBS = 60


@pytest.fixture
def house(tmp_path: Path, database: Database) -> Iterator[House]:
    """Give a house whose nodes know transactional jobs, and a table of the user's beside ours."""
    database.run("CREATE TABLE effects (job CHAR(32), lease INTEGER)")
    shutil.copy(HERE / "transactional_jobs.py", tmp_path)
    with house_in(tmp_path, database) as made:
        yield made
    with database.engine.connect() as connection:
        database.server.end_others(connection)
    database.run("DROP TABLE effects")


def test_whoever_is_killed_each_job_leaves_its_effect_once(house: House) -> None:
    handles = [house.push("Pay", {"answer": number}) for number in range(JOBS)]
    node = house.start(2, imports=IMPORTS, crashed_again_delay=0.1)
    for share in (5, 15, 25, 35):
        until(lambda share=share: len(house.started()) >= share, "some have started")  # type: ignore[misc]
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(node.workers[-1], signal.SIGKILL)
    until(lambda: len(house.started()) >= 45, "more have started")
    node.kill()
    house.start(2, imports=IMPORTS, crashed_again_delay=0.1)
    records = house.manager.wait_for(handles, 60)
    assert {record.state for record in records} == {State.COMPLETED}
    done = sorted((record.id.hex, record.lease) for record in records)
    assert sorted(house.rows("SELECT job, lease FROM effects")) == done

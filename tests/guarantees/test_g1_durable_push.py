"""G1: when a push returns, its job is there, whoever is killed.

Of the flush to the disk: tests/drivers/sqlite/test_files.py (`test_the_log_is_flushed_as_the_durability_says`); of a
COMMIT that nobody answered: tests/faults/test_doubt.py.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tests.faults.site import ServerHouse
from tests.node.running import House, until
from tests.servers.private import PrivateServer

PUSHING = Path(__file__).with_name("pushing_process.py")


def start_pushing(house: House) -> tuple[subprocess.Popen[bytes], Path]:
    acknowledged = house.folder / "acknowledged"
    command = [sys.executable, str(PUSHING), str(acknowledged), house.url]
    return subprocess.Popen(command, env=house.environment(), stderr=subprocess.DEVNULL), acknowledged


def ids_in(acknowledged: Path) -> set[bytes]:
    whole, _, _ = acknowledged.read_text().rpartition("\n")
    return {UUID(line).bytes for line in whole.split()}


def stored(house: House) -> set[bytes]:
    return {row[0] for row in house.rows("SELECT id FROM tq_jobs")}


def test_each_acknowledged_push_survives_the_kill_of_its_process(house: House) -> None:
    pushing, acknowledged = start_pushing(house)
    until(lambda: acknowledged.exists() and len(ids_in(acknowledged)) >= 100, "a hundred jobs are pushed")
    pushing.send_signal(signal.SIGKILL)
    pushing.wait()
    assert len(stored(house) - ids_in(acknowledged)) <= 1, "at most the last one was stored and not acknowledged"
    assert ids_in(acknowledged) <= stored(house)


def test_each_acknowledged_push_survives_the_kill_of_the_server(
    server_house: ServerHouse, private_server: PrivateServer
) -> None:
    pushing, acknowledged = start_pushing(server_house)
    until(lambda: acknowledged.exists() and len(ids_in(acknowledged)) >= 100, "a hundred jobs are pushed")
    private_server.kill()
    pushing.wait(30)
    private_server.start()
    there = {row[0] for row in server_house.site.rows("SELECT id FROM tq_jobs")}
    assert ids_in(acknowledged) <= there


@pytest.mark.any_database
def test_an_acknowledged_push_runs_after_everybody_was_killed(house: House) -> None:
    pushing, acknowledged = start_pushing(house)
    until(lambda: acknowledged.exists() and len(ids_in(acknowledged)) >= 20, "some jobs are pushed")
    node = house.start().await_start()
    pushing.kill()
    pushing.wait()
    node.kill()
    house.work_until_empty(2)
    done = {row[0] for row in house.rows("SELECT id FROM tq_history WHERE state = 4")}
    assert ids_in(acknowledged) <= done

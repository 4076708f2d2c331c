"""A node whose disk runs full: it writes what has ended, claims nothing, and goes on by itself when there is room."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue import State
from taskqueue.errors import StorageFull
from tests.databases import SERVERS
from tests.node.running import House, house_in, until
from tests.servers.small_disk import MEBIBYTE, SmallDisk, mounted

SIZE = 32 * MEBIBYTE
WAITING = 150
RESULT = 300_000
"""Characters of the running job's result, which no compression makes small."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk", SIZE) as disk:
        yield disk


@pytest.fixture
def house(tmp_path: Path, disk: SmallDisk) -> Iterator[House]:
    """Give a database in a file on the small disk; everything else lies elsewhere."""
    (files,) = [server for server in SERVERS.values() if server.in_files]
    with house_in(tmp_path, files.ready(disk.folder)) as made:
        yield made


def pending(house: House) -> int:
    return house.manager.size()


def beats(house: House) -> int:
    ((sequence,),) = house.rows("SELECT max(sequence) FROM tq_nodes")
    return int(sequence)


def await_completed(house: House, jobs: int) -> None:
    statement = f"SELECT count(*) FROM tq_history WHERE state = {State.COMPLETED.code}"
    until(lambda: house.rows(statement) == [(jobs,)], f"{jobs} jobs are completed")


def is_whole(house: House) -> bool:
    assert house.database.file is not None
    connection = sqlite3.connect(house.database.file)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()


def test_a_full_disk_keeps_a_node_from_claiming_until_there_is_room_and_nothing_is_lost(
    house: House, disk: SmallDisk
) -> None:
    running = house.push("Quick", {"gate": "open", "answer": secrets.token_hex(RESULT // 2)})
    node = house.start(lease=6.0, heartbeat=0.5)
    house.await_start(running)
    for _ in range(WAITING):
        house.push("Quick", {"sleep": 0.02})
    disk.fill()
    house.open_gate("open")

    until(lambda: running.record().state is State.COMPLETED, "the running job is acknowledged from the reserve")
    until(lambda: "no job is claimed" in node.log, "the node says why it claims nothing")
    until(lambda: not house.manager.get_jobs(state=State.PROCESSING), "what was claimed before has ended")
    left, beat = pending(house), beats(house)
    assert left > 0
    with pytest.raises(StorageFull, match="nothing was stored"):
        house.push("Quick")
    until(lambda: beats(house) >= beat + 4, "the node goes on beating")
    assert pending(house) == left
    assert node.log.count("no job is claimed") == 1
    assert "stops its workers" not in node.log

    disk.clear()
    await_completed(house, WAITING + 1)
    assert "there is room on the disk again" in node.log
    house.push("Quick")
    await_completed(house, WAITING + 2)
    assert node.stop() == 0
    house.assert_no_start_twice()
    assert is_whole(house)


def test_a_node_that_is_killed_on_a_full_disk_is_followed_by_one_that_finishes_everything(
    house: House, disk: SmallDisk
) -> None:
    running = house.push("Quick", {"gate": "open", "answer": secrets.token_hex(RESULT // 2)})
    node = house.start(lease=6.0, heartbeat=0.5)
    house.await_start(running)
    for _ in range(WAITING):
        house.push("Quick", {"sleep": 0.02})
    disk.fill()
    house.open_gate("open")
    until(lambda: "no job is claimed" in node.log, "the node says why it claims nothing")
    node.kill()

    second = house.start(lease=6.0, heartbeat=0.5).await_start()
    until(lambda: "no job is claimed" in second.log, "the second node claims nothing either")
    disk.clear()
    await_completed(house, WAITING + 1)
    assert second.stop() == 0
    house.assert_no_start_twice()
    assert is_whole(house)

"""A secret that a job carries is found nowhere but in the memory of who needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskqueue import QueueManager, State
from tests.node.running import House, job

CANARY = "kanarienvogel-7f3a9c51e2"

HANDLERS = f"""
import os
from taskqueue import Job

class Tell(Job):
    name = "Tell"

    def handle(self):
        assert "{CANARY[:8]}" in self.payload["secret"]
        if self.payload["how"] == "return":
            return {{"echo": self.payload["secret"]}}
        if self.payload["how"] == "keep":
            self.payload["more"] = self.payload["secret"]
            return None
        if self.payload["how"] == "unserialisable":
            return {{self.payload["secret"]: object()}}
        raise ValueError(self.payload["secret"])

    def on_failure(self, error):
        if self.payload["how"] == "hook":
            raise RuntimeError(self.payload["secret"])


class Wait(Job):
    name = "Wait"

    def handle(self):
        from node_jobs import note, wait_for
        note(self)
        wait_for(self.payload["gate"])
"""

HOWS = ["return", "keep", "unserialisable", "raise", "hook"]


@pytest.fixture
def told(house: House) -> House:
    """Give a house in which jobs with the secret have run, been retried, failed, been parked, cancelled and delayed."""
    (house.folder / "secret_jobs.py").write_text(HANDLERS)
    for how in HOWS:
        house.push("Tell", {"secret": CANARY, "how": how}, max_attempts=2, retry_interval=0)
    house.push("Nobody", {"secret": CANARY})
    house.push("Tell", {"secret": CANARY}, delay=3600)
    house.push("Tell", {"secret": CANARY}, unique_key=CANARY, delay=3600)
    house.push("Tell", {"secret": CANARY}, delay=3600).cancel()
    return house


def written(house: House) -> dict[str, bytes]:
    """Return what was written: all that the database holds, with its log and index if it is a file, and the logs."""
    house.manager.disconnect()  # Reading a file drops the locks that the same process holds on it.
    files = {path.name: path.read_bytes() for path in house.folder.iterdir() if path.is_file() and path.suffix != ".py"}
    return {**house.database.stored(), **files}


def test_no_secret_reaches_the_database_files_or_the_log(told: House) -> None:
    for log_format in ("text", "json"):
        told.start(
            2, imports=("node_jobs", "secret_jobs"), general={"log_level": "debug", "log_format": log_format}
        ).await_start()
    records = told.manager.wait_for(told.ids_of("Tell", State.COMPLETED, State.FAILED, expected=len(HOWS)), 30)
    assert sorted(record.state for record in records) == [State.COMPLETED] * 2 + [State.FAILED] * 3
    assert {record.error.message for record in records if record.error and record.error.type == "ValueError"} == {
        CANARY
    }
    files = written(told)
    assert {"node-0.log", "node-1.log"} <= files.keys()
    assert [name for name, content in files.items() if name in told.database.stored() and b"default" in content]
    for form in (CANARY.encode(), CANARY.encode("utf-16-le"), CANARY.encode().hex().encode()):
        assert [name for name, content in files.items() if form in content] == []


def test_the_search_would_find_a_secret_that_was_stored_in_clear(house: House) -> None:
    with QueueManager(house.url, encryption=False) as manager:
        manager.push(job("Tell", {"secret": CANARY}))
        assert [name for name, content in written(house).items() if CANARY.encode() in content]


@pytest.mark.any_database
def test_no_key_and_no_secret_is_an_argument_or_in_the_environment_of_a_worker(told: House) -> None:
    handle = told.push("Wait", {"secret": CANARY, "gate": "open"})
    node = told.start(2, imports=("node_jobs", "secret_jobs"))
    worker = told.await_start(handle).pid
    key = told.key.removeprefix("base64:").encode()
    for pid in node.tree:
        assert worker in node.tree
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert key not in arguments
        assert CANARY.encode() not in arguments
    for pid in node.tree[1:]:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"ENCRYPTION_KEY" not in environment
        assert key not in environment
        assert CANARY.encode() not in environment
    told.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED


def test_the_key_is_in_no_file_but_the_one_that_holds_it(told: House) -> None:
    told.work_until_empty(imports=("node_jobs", "secret_jobs"))
    key = told.key.removeprefix("base64:").encode()
    assert [name for name, content in written(told).items() if key in content] == []

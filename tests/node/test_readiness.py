"""Waiting for open files works beyond descriptor 1023, where ``select.select`` fails; a whole node runs there."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue import State
from taskqueue.node.readiness import readable, writable
from tests.node.running import House
from tests.source_tree import House as Sources

MANY = 1100
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def many_open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(MANY)]
    yield
    for each in files:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_open_files")
def test_a_file_with_a_high_number_is_waited_for() -> None:
    reader, writer = os.pipe()
    try:
        assert reader > 1023
        assert readable([reader], 0.001) == []
        assert writable(writer, 10)
        os.write(writer, b"!")
        assert readable([reader], 10) == [reader]
        os.close(writer)
        assert readable([reader]) == [reader], "its end is something to read"
    finally:
        os.close(reader)


def test_a_wait_never_ends_before_its_time() -> None:
    """Otherwise what waits for a moment would ask again and again in the millisecond before it."""
    reader, writer = os.pipe()
    try:
        for seconds in (0.0004, 0.0011, 0.01):
            began = time.monotonic()
            assert readable([reader], seconds) == []
            assert time.monotonic() - began >= seconds
    finally:
        os.close(reader)
        os.close(writer)


MANY_FILES = f"""
import os
import resource

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, most))
FILES = [os.open("/dev/null", os.O_RDONLY) for _ in range({MANY})]
"""


@pytest.mark.any_database
def test_a_node_whose_processes_have_more_than_a_thousand_files_open_works_and_stops(house: House) -> None:
    (house.folder / "many_files.py").write_text(MANY_FILES)
    (house.folder / "sitecustomize.py").write_text("import many_files\n")
    path = os.environ.get("PYTHONPATH")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{house.folder}:{path}" if path else str(house.folder))
        node = house.start(2, imports=("node_jobs", "many_files"), crashed_again_delay=0.1)
    poison = house.push("Killer")
    handles = [house.push("Quick") for _ in range(20)]
    records = house.manager.wait_for([*handles, poison], 60)
    assert {record.state for record in records} == {State.COMPLETED, State.FAILED}
    assert len(os.listdir(f"/proc/{node.pid}/fd")) > MANY  # noqa: PTH208 - names are enough
    assert max(int(each.name) for each in Path(f"/proc/{node.workers[0]}/fd").iterdir()) > 1023
    assert node.stop() == 0
    assert "Traceback" not in node.log


def test_nothing_in_the_package_waits_by_select() -> None:
    users = [
        module.path.as_posix()
        for module in Sources(ROOT).modules.values()
        if "select.select(" in module.source and module.path.name != "readiness.py"
    ]
    assert users == []

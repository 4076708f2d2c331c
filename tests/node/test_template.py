"""What workers inherit from the template: what they need, and nothing besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.running import PATIENCE, House

LOOKING = """
import sys
from pathlib import Path
from taskqueue import Job

WANTED = Path(__file__).with_name("wanted").read_text()

class Look(Job):
    name = "Look"

    def handle(self):
        frame, found = sys._getframe(), []
        while frame is not None:
            found += [name for name, value in frame.f_locals.items() if WANTED in repr(value)]
            frame = frame.f_back
        return found
"""

CHANGING = """
import os
from pathlib import Path
from sqlalchemy import text
from taskqueue import Job

os.chdir("/")

class Pay(Job):
    name = "Pay"
    transactional = True

    def handle(self, session):
        return [str(Path.cwd()), session.execute(text("SELECT COUNT(*) FROM tq_jobs")).scalar()]
"""


def test_a_job_finds_the_way_to_the_database_in_no_frame(house: House) -> None:
    (house.folder / "looking.py").write_text(LOOKING)
    (house.folder / "wanted").write_text(house.url)
    handle = house.push("Look")
    house.work_until_empty(1, imports=("looking",))
    assert handle.result() == []


def test_a_job_module_may_change_the_folder_though_the_database_is_named_by_a_relative_path(house: House) -> None:
    file = house.database.file
    if file is None:
        pytest.skip("a server is at no path")
    (house.folder / "changing.py").write_text(CHANGING)
    handle = house.push("Pay")
    house.url = f"sqlite:///{Path(file).relative_to(house.folder)}"
    house.start(1, imports=("changing",))
    handle.wait(PATIENCE)
    assert handle.result() == ["/", 1]

"""What tests with real nodes share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Database
from tests.node.running import House, house_in


@pytest.fixture
def house(tmp_path: Path, database: Database) -> Iterator[House]:
    """Give a database and a folder with a jobs module; whatever ran there is gone afterwards."""
    with house_in(tmp_path, database) as made:
        yield made


@pytest.fixture
def desk(house: House) -> House:
    """Give a house in which the nodes also know the jobs that ask for something while they run."""
    shutil.copy(Path(__file__).with_name("desk_jobs.py"), house.folder)
    return house

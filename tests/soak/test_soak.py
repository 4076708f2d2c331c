"""The short form of ``make soak``: after mixed load a node holds as many files, processes, threads as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Database
from tests.node.running import House, house_in
from tests.soak.soak import Soak

MOST_GROWTH = 8.0
"""MB; in ten seconds most of it is what Python keeps after its first large messages."""


@pytest.fixture
def house(tmp_path: Path, database: Database) -> Iterator[House]:
    with house_in(tmp_path, database) as made:
        yield made


@pytest.mark.slow
def test_after_mixed_load_a_node_holds_what_it_held_before(house: House) -> None:
    report = Soak(house, 10.0, rate=12.0, every=5.0, seed=7, max_jobs=15).run(4.0, rounds=3)
    assert report.faults(MOST_GROWTH) == []
    assert report.jobs > 20
    assert sum(report.finished.values()) <= report.jobs
    assert report.workers_replaced > 0

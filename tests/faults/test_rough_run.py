"""The short form of `rough_run`: two nodes, some kills, one restart, and every invariant."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.rough_run import rough_run
from tests.servers.private import PrivateServer


@pytest.mark.slow
def test_two_thousand_jobs_on_two_nodes_survive_kills_and_a_restart(
    private_server: PrivateServer, tmp_path: Path
) -> None:
    seed = int(os.environ.get("TASKQUEUE_TEST_SEED", time.time_ns() % 1_000_000))
    report = rough_run(tmp_path, private_server, jobs=2000, nodes=2, kills=6, restarts=1, seed=seed)
    assert report.faults == [], json.dumps(asdict(report), indent=2)
    assert report.restarts == 1
    assert report.killed_nodes >= 1

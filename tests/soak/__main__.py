"""``make soak``: an hour of mixed load, and whether the node is what it was."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.databases import SERVERS
from tests.node.running import house_in
from tests.soak.soak import Soak

MOST_GROWTH = 5.0
"""MB that a process may hold more after an hour: what an allocator keeps of the largest moment."""


def main() -> int:
    """Soak a node, write a JSON report, and say what is wrong."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--database", choices=SERVERS, default=next(iter(SERVERS)))
    parser.add_argument("--rate", type=float, default=40.0, help="jobs a second")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two samples")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--report", type=Path, default=Path("soak.json"))
    given = parser.parse_args()
    server = SERVERS[given.database]
    if server.missing:
        parser.error(server.missing)
    sys.stdout.write(f"seed {given.seed}\n")
    with tempfile.TemporaryDirectory(prefix="taskqueue-soak-") as folder:
        database = server.with_tables(Path(folder))
        try:
            with house_in(Path(folder), database) as house:
                soak = Soak(house, given.minutes * 60, rate=given.rate, every=given.every, seed=given.seed)
                report = soak.run(min(60.0, given.minutes * 12), lambda line: print(line, flush=True))  # noqa: T201
        finally:
            server.close()
    faults = report.faults(MOST_GROWTH)
    given.report.write_text(json.dumps({**report.as_json(), "faults": faults}, indent=2) + "\n")
    grown = ", ".join(f"{name} {report.growth(name):+.1f} MB" for name in ("supervisor", "template"))
    sys.stdout.write(f"{report.jobs} jobs in {given.minutes:g} min: {grown}; {given.report} has it all\n")
    for fault in faults:
        sys.stdout.write(f"FAULT: {fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

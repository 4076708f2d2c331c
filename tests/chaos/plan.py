"""What a run is asked to do, and what the command line says of it."""

from __future__ import annotations

import argparse
import ctypes.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.databases import SERVERS

FAULTS = ("kill", "pause", "restart", "cut", "deploy", "clock")
"""The kinds of faults. Where a database is a file there is no server to restart and no link to cut."""

RESTART_EVERY = 20.0
LEASE = 6.0
"""Workers are killed at 2/3 of it, by a template that looks once a second: from 6 s on that is well before its end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    database: str
    jobs: int = 3000
    nodes: int = 3
    seed: int = 0
    minutes: float = 0.5
    faults: tuple[str, ...] = FAULTS
    mutant: str | None = None
    lease: float = LEASE
    workers: int = 2
    """Workers of each node."""
    patience: float = 90.0
    """Seconds that the jobs have to end in, once nothing is broken any more."""
    scene: str = ""
    """The few steps to be played in the place of a storm."""

    @property
    def seconds(self) -> float:
        """Return how long things are pushed and broken."""
        return self.minutes * 60

    @property
    def heartbeat(self) -> float:
        """Return the seconds between two beats."""
        return self.lease / 8


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for: runs, the drills after them, and where the report goes."""

    plans: Sequence[Plan]
    drills: int
    report: Path | None


_DEFAULTS = {"jobs": 3000, "nodes": 3, "minutes": 0.6}


def parse(words: Sequence[str] | None, seed: int) -> Asked:
    """Read the command line; ``seed`` is for runs that are given none."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Break everything while jobs run, and count what came of each."
    )
    parser.add_argument("--database", choices=SERVERS, action="append", help="where to run; each one unless given")
    parser.add_argument("--jobs", type=int, default=_DEFAULTS["jobs"])
    parser.add_argument("--nodes", type=int, default=_DEFAULTS["nodes"])
    parser.add_argument("--workers", type=int, default=2, help="of each node")
    parser.add_argument("--seed", type=int, default=seed, help="repeats the choices of an earlier run")
    parser.add_argument("--minutes", type=float, default=_DEFAULTS["minutes"], help="how long to push and to break")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds that the jobs have after that")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which kinds, separated by commas")
    parser.add_argument("--mutant", help="plant this mistake into the nodes: the run has to turn red")
    parser.add_argument("--lease", type=float, default=LEASE, help="seconds")
    parser.add_argument("--drills", type=int, default=4, help="how often each recovery is measured in calm; 0: never")
    parser.add_argument("--report", type=Path, help="the file for the report; printed unless given")
    asked = parser.parse_args(words)
    faults = tuple(each for each in asked.faults.split(",") if each)
    unknown = set(faults) - set(FAULTS)
    if unknown:
        parser.error(f"--faults knows {', '.join(FAULTS)}, got {', '.join(sorted(unknown))}")
    names = ("jobs", "nodes", "workers", "seed", "minutes", "patience", "mutant", "lease")
    plan = Plan("", faults=faults, **{name: getattr(asked, name) for name in names})
    plans = [replace(plan, database=each) for each in asked.database or SERVERS]
    return Asked(plans, asked.drills, asked.report)


def faketime() -> Path | None:
    """Return the library that moves a process's clock, or None where it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    name = ctypes.util.find_library("faketimeMT")
    return found[0] if found else Path(name) if name else None

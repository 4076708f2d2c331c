"""What is altered in the processes of a node: they tell the journal more, and carry a mistake or die at a point.

The supervisor's start script calls `in_node`; the module of the jobs, which the template imports, calls `in_template`.
"""

from __future__ import annotations

import os
from datetime import timedelta

FAR, SKEW, MUTANT, POINT = "CHAOS_FAR", "CHAOS_SKEW", "CHAOS_MUTANT", "CHAOS_POINT"
"""Environment variables: a host that the node claims to run on, the seconds by which its supervisor's wall clock is
wrong, a planted mistake, a crash point."""

LATE = "CHAOS_LATE"
"""Environment variable: set for nodes that know a class which others lack."""


def in_node() -> None:
    """Alter a supervisor, before it makes anything."""
    from taskqueue.clock import SystemClock
    from taskqueue.node import identity
    from tests.chaos import mutants, points, witness
    from tests.chaos.wrapping import around

    witness.install()
    far = os.environ.get(FAR)
    if far:
        identity._boot_id = lambda: far  # type: ignore[assignment]
    skew = int(os.environ.get(SKEW) or 0)
    if skew:
        around(SystemClock, "now_us", lambda inner, clock: inner(clock) + skew * 1_000_000)
        around(SystemClock, "now", lambda inner, clock: inner(clock) + timedelta(seconds=skew))
    if os.environ.get(MUTANT):
        mutants.plant(os.environ[MUTANT])
    if os.environ.get(POINT):
        points.set_up(os.environ[POINT])


def in_template() -> None:
    """Alter a template, and so the workers that it forks; does nothing where no node is."""
    if os.environ.get(MUTANT):
        from tests.chaos import mutants

        mutants.plant_in_template(os.environ[MUTANT])
    if os.environ.get(POINT):
        from tests.chaos import points

        points.set_up_in_template(os.environ[POINT])

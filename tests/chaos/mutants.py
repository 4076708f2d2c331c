"""Planted mistakes, each one that another queue has made: the harness has to notice every one of them.

They are planted where the node calls the verbs of its driver, in the node's own process, so that they are the same
mistake on every database and none of them touches the product.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update

from taskqueue.clock import SystemClock
from taskqueue.drivers.statements import nodes as node_statements
from taskqueue.drivers.tables import PENDING, jobs
from taskqueue.drivers.values import Completion
from taskqueue.drivers.verbs import control
from taskqueue.node import rescue
from taskqueue.node.lease import NodeLease
from taskqueue.node.slots import Slots
from taskqueue.states import Verb
from tests.chaos import journal
from tests.chaos.wrapping import around, around_verb

BETWEEN = 1.0
"""Seconds between the two steps of a release."""


def plant(name: str) -> None:
    """Plant a mistake into a supervisor."""
    _IN_NODE[name]()


def plant_in_template(name: str) -> None:
    """Plant what of it belongs into a template."""
    _IN_TEMPLATE.get(name, lambda: None)()


def no_fencing() -> None:
    """Write every outcome under whatever lease the job has by now."""

    def cycle(inner: Any, driver: Any, node: int, completions: Any, endings: Any, *rest: Any) -> Any:
        ids = [each.id for each in (*completions, *endings)]
        if ids:
            rows = driver.read(lambda c: c.execute(select(jobs.c.id, jobs.c.lease).where(jobs.c.id.in_(ids))).all())
            now = {bytes(each): lease for each, lease in rows}
            completions = [each._replace(lease=now.get(bytes(each.id), each.lease)) for each in completions]
            endings = [each._replace(lease=now.get(bytes(each.id), each.lease)) for each in endings]
        return inner(driver, node, completions, endings, *rest)

    around_verb("cycle", cycle)


def rescue_unguarded() -> None:
    """Rescue the jobs of nodes without a look at whether they live."""
    for name in [each for each in vars(node_statements) if each.endswith("JOBS_OF_NODE")]:
        statement = getattr(node_statements, name)._generate()
        statement._where_criteria = tuple(
            each for each in statement._where_criteria if "EXISTS" not in str(each).upper()
        )
        setattr(node_statements, name, statement)
    around_verb("orphaned_nodes", lambda _, driver: [node.id for node in driver.nodes()])


def acknowledge_first() -> None:
    """Write a job down as completed when it is claimed."""
    told: set[tuple[bytes, int]] = set()

    def cycle(inner: Any, driver: Any, node: int, completions: Any, endings: Any, lanes: Any, limit: int) -> Any:
        completions = [each for each in completions if (each.id, each.lease) not in told]
        found = inner(driver, node, completions, endings, lanes, limit)
        first = [Completion(each.id, each.lease, each.queue, each.ready_at, 0, 0, None) for each in found.claimed]
        if first:
            inner(driver, node, first, [], lanes, 0)
            told.update((each.id, each.lease) for each in first)
        return found

    around_verb("cycle", cycle)


def release_in_two_steps() -> None:
    """Take a job that is handed back away from its node first, and put it back among the waiting ones later."""

    def cycle(inner: Any, driver: Any, node: int, completions: Any, endings: Any, *rest: Any) -> Any:
        released = [each for each in endings if each.verb is Verb.RELEASE]
        others = [each for each in endings if each.verb is not Verb.RELEASE]
        for each in released:
            held = (jobs.c.id == each.id, jobs.c.lease == each.lease)
            row = driver.read(lambda c, held=held: c.execute(select(jobs).where(*held)).mappings().one_or_none())
            if row is None:
                continue
            driver.write(lambda c, held=held: c.execute(delete(jobs).where(*held)))
            journal.write("between", more="release")
            threading.Event().wait(BETWEEN)
            values = {**row, "state": PENDING, "lease": row["lease"] + 1, "attempt": row["attempt"] - 1}
            driver.write(lambda c, values=values: c.execute(insert(jobs).values(**values)))
        return inner(driver, node, completions, others, *rest)

    around_verb("cycle", cycle)


def no_self_stop() -> None:
    """Go on whatever becomes of the beats."""
    NodeLease.must_stop = property(lambda _: False)  # type: ignore[assignment]


def template_blind() -> None:
    """Have the template go on too."""
    around(Slots, "lease_is_over", lambda _, __: False)


def lease_reset() -> None:
    """Let a revived job count its leases from 0 again."""

    def revive(inner: Any, connection: Any, *values: Any) -> Any:
        ids = inner(connection, *values)
        if ids:
            connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(lease=0))
        return ids

    around(control, "revive", revive)


def judged_by_age() -> None:
    """Call a node dead when its last beat looks older than a lease by the observer's wall clock."""
    clock = SystemClock()
    around(rescue, "_is_dead", lambda _, seen: clock.now_us() - seen.row.beat_at > seen.row.lease_ms * 1000)


_IN_NODE: Mapping[str, Callable[[], None]] = {
    "no fencing": no_fencing,
    "unguarded rescue": rescue_unguarded,
    "acknowledgement before effect": acknowledge_first,
    "two-step release": release_in_two_steps,
    "no self-stop": no_self_stop,
    "lease reset at revive": lease_reset,
    "heartbeat judged by age": judged_by_age,
}
_IN_TEMPLATE: Mapping[str, Callable[[], None]] = {"no self-stop": template_blind}

MUTANTS = tuple(_IN_NODE)

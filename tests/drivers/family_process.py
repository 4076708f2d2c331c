"""Run by tests in a process of its own: push jobs that depend on others, or end such jobs, as fast as it can."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from uuid import uuid4

from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob, Completion, Ending, JobFilter, NewJob, NodeIdentity
from taskqueue.ids import new_id
from taskqueue.states import Reason, Verb


def push(driver: Driver, chance: random.Random, wanted: int) -> None:
    """Push jobs with up to four parents each, young ones of every process; print each family that was stored."""
    known: list[bytes] = []
    pushed = 0
    for turn in itertools.count():
        if turn % 5 == 0:
            known = [row.id for row in driver.find(JobFilter(), 40)]
        batch = [job(chance) for _ in range(min(chance.choice([1, 1, 1, 3, 8]), wanted - pushed))]
        parents = []
        for number in range(len(batch)):
            possible = known + [each.id for each in batch[:number]]
            parents.append(chance.sample(possible, min(len(possible), chance.choice([0, 1, 1, 2, 4]))))
        driver.push_many(batch, (), parents)
        for each, above in zip(batch, parents, strict=True):
            known.append(each.id)
            sys.stdout.write(f"{each.id.hex()} {each.on_parent_failure} {' '.join(one.hex() for one in above)}\n")
        pushed += len(batch)
        if pushed == wanted:
            return


def job(chance: random.Random) -> NewJob:
    now, policy = time.time_ns() // 1000, chance.choice([0, 0, 1, 2, 2, 2, 3])
    due, limits = (0, now, now, None, None), (None, None, 0)
    return NewJob(new_id().bytes, "q", 0, "app.Work", *due, 3, 0, *limits, None, policy, None, None, "k", None, b"")


def finish(driver: Driver, chance: random.Random) -> None:
    """End what can be claimed, one job in ten badly, until nobody pushes any more and nothing is left."""
    node = driver.register_node(NodeIdentity(uuid4().bytes, "n", "h", None, None, 1, None, 30_000, "{}"))
    over = threading.Event()
    threading.Thread(target=note_end_of_pushes, args=(over,), daemon=True).start()
    claimed: list[ClaimedJob] = []
    lanes = driver.lanes(None)
    while True:
        last = over.is_set()
        done = [completion(each) for each in claimed if chance.random() < 0.9]
        good = {each.id for each in done}
        endings = [ending(each, chance) for each in claimed if each.id not in good]
        cycle = driver.cycle(node, done, endings, lanes, chance.randint(1, 20))
        if cycle.stale:
            raise SystemExit(f"{len(cycle.stale)} ends were refused")
        claimed = list(cycle.claimed)
        if not claimed:
            if last and not (done or endings):
                return
            lanes = driver.lanes(None)
            over.wait(0.002)  # Let the others have the processor.


def note_end_of_pushes(over: threading.Event) -> None:
    sys.stdin.readline()
    over.set()


def completion(claimed: ClaimedJob) -> Completion:
    return Completion(claimed.id, claimed.lease, claimed.queue, time.time_ns() // 1000, 1, 1, None)


def ending(claimed: ClaimedJob, chance: random.Random) -> Ending:
    verb = chance.choice([Verb.FAIL, Verb.CANCEL, Verb.RETRY])
    return Ending(claimed.id, claimed.lease, claimed.queue, verb, time.time_ns() // 1000, reason=Reason.ERROR)


def main(role: str, url: str, seed: str, wanted: str = "0") -> None:
    driver, chance = open_driver(url, durability="normal"), random.Random(seed)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if role == "finish":
        finish(driver, chance)
        return
    sys.stdin.readline()
    push(driver, chance, int(wanted))


if __name__ == "__main__":
    main(*sys.argv[1:])

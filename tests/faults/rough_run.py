"""Run thousands of jobs on several nodes while these and their database are killed, and check that nothing was lost.

::

    python -m tests.faults.rough_run --server postgresql --jobs 20000 --nodes 4 --kills 40 --restarts 2 --seed 1

Prints a report as JSON, and exits with 1 where an invariant does not hold. Half of the jobs are there at the start, the
others are pushed meanwhile. Each start of a handler is logged to a file outside of the database, by one write, so that
the database cannot vouch for itself. ``--url`` takes a database of a server that is not to be restarted; its tables are
made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import make_url

from taskqueue import QueueManager
from taskqueue.drivers import migrate
from taskqueue.errors import DatabaseUnreachable, TaskQueueError
from taskqueue.states import State
from tests.databases import SERVERS, Database
from tests.node.running import House, Line, RunningNode, job
from tests.servers.mariadb import MariaDB
from tests.servers.mysql import MySQL
from tests.servers.postgresql import PostgreSQL
from tests.servers.private import PrivateServer, await_that

KINDS: dict[str, type[PrivateServer]] = {each.name: each for each in (PostgreSQL, MariaDB, MySQL)}
CRASHED_AGAIN_DELAY = 0.5
LEASE = 9.0
"""Seconds after which the jobs of a dead node are taken over."""

_ABOUT_LOCKS = re.compile(r"deadlock|lost a lock|lock wait|could not serialize|\b1213\b|\b1205\b|40P01", re.IGNORECASE)
_CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+(?:\.\d+)?")

BRIEF = '''
import os
import time

from taskqueue import Job

FILE = os.open(os.environ["TEST_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class Brief(Job):
    """Takes a millisecond and leaves one line outside of the database, by one write."""

    name = "Brief"

    def handle(self):
        line = '{"job":"%s","lease":%d,"pid":%d,"what":"start","attempt":%d,"at":%r}\\n'
        os.write(FILE, (line % (self.id, self.fencing_token, os.getpid(), self.attempt, time.monotonic())).encode())
        time.sleep(0.001)
'''


@dataclass
class Report:
    """What happened; ``faults`` is empty where every invariant holds."""

    seed: int
    server: str
    jobs: int
    nodes: int
    acknowledged: int = 0
    stored: int = 0
    completed: int = 0
    starts: int = 0
    started_more_than_once: int = 0
    killed_workers: int = 0
    killed_nodes: int = 0
    restarts: int = 0
    longest_silence_after_a_restart: float = 0.0
    seconds: float = 0.0
    errors_of_pushers: dict[str, int] = field(default_factory=dict)
    lines_of_nodes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class RoughRun:
    """One run; ``server`` is None where the database may not be restarted."""

    def __init__(
        self, house: House, server: PrivateServer | None, *, jobs: int, nodes: int, kills: int, restarts: int, seed: int
    ) -> None:
        self.house = house
        house.durability = "full"  # A server that is killed forgets what it was not made to write.
        self.server = server
        self.report = Report(seed, server.name if server else "given", jobs, nodes)
        self.killed: set[int] = set()
        self.pushed: list[UUID] = []
        self._random = random.Random(seed)
        self._jobs, self._kills, self._restarts = jobs, kills, restarts if server else 0
        self._errors: Counter[str] = Counter()
        self._pushing = threading.Thread(target=self._push_the_rest, daemon=True)
        (house.folder / "brief_jobs.py").write_text(BRIEF)
        self._nodes: list[RunningNode] = []
        self._logs: list[Path] = []

    # --- the run ---------------------------------------------------------------------------------------------

    def run(self, patience: float) -> Report:
        """Push, work and break until all is done or ``patience`` seconds have passed, and check."""
        began = time.monotonic()
        self._push(self._jobs // 2)
        for _ in range(self.report.nodes):
            self._start_node()
        for node in self._nodes:
            node.await_workers(2)
        self._pushing.start()
        self._break_everything(began + patience)
        self._pushing.join(patience)
        try:
            await_that(lambda: self._unfinished() == 0, "every job is final", began + patience - time.monotonic())
        except AssertionError as error:
            self.report.faults.append(str(error))
        self.report.seconds = round(time.monotonic() - began, 1)
        codes = [node.stop() for node in self._nodes]
        if any(codes):
            self.report.faults.append(f"nodes ended with {codes}")
        Check(self).all()
        return self.report

    def _start_node(self) -> None:
        node = self.house.start(
            2, imports=("brief_jobs",), max_jobs=10 * self._jobs, lease=LEASE,
            heartbeat=2.0,
            crashed_again_delay=CRASHED_AGAIN_DELAY, general={"log_level": "warning"},
        )  # fmt: skip
        self._nodes.append(node)
        self._logs.append(node.log_file)

    def _push_the_rest(self) -> None:
        """Push one by one and by hundreds, as users do who see each error and try again."""
        with QueueManager(self.house.url, encryption_key=self.house.key) as manager:
            left = self._jobs - self._jobs // 2
            while left > 0:
                number = min(left, self._random.choice((1, 1, 1, 20, 100, 500)))
                if self._noting(lambda number=number: self._push(number, manager)):  # type: ignore[misc]
                    left -= number
                threading.Event().wait(0.02)

    def _push(self, number: int, manager: QueueManager | None = None) -> None:
        manager = manager or self.house.manager
        if number == 1:
            self.pushed.append(manager.push(job("Brief")).id)
        else:
            self.pushed.extend(manager.push_many([job("Brief") for _ in range(number)]))

    def _noting(self, work: Callable[[], None]) -> bool:
        """Say whether ``work`` was done; count the error otherwise."""
        try:
            work()
        except TaskQueueError as error:
            self._errors[shape(f"{type(error).__name__}: {error}")] += 1
            if not isinstance(error, DatabaseUnreachable):
                self.report.faults.append(f"a pusher got {error!r}")
            return False
        return True

    # --- faults ----------------------------------------------------------------------------------------------

    def _break_everything(self, until: float) -> None:
        """Kill and restart at moments that are spread over the work, whatever it takes."""
        faults = [self._kill_a_worker] * self._kills + [self._kill_a_node] * max(1, self._kills // 10)
        faults = faults if self._kills else []
        self._random.shuffle(faults)
        for number in range(self._restarts):
            faults.insert((number + 1) * len(faults) // (self._restarts + 1), self._restart)
        for number, fault in enumerate(faults, 1):
            share = 0.9 * self._jobs * (number - self._random.random()) / len(faults)
            while self._done() < share and time.monotonic() < until:
                threading.Event().wait(0.02)
            fault()

    def _kill_a_worker(self) -> None:
        workers = self._random.choice(self._nodes).workers
        if workers:
            pid = self._random.choice(workers)
            self.killed.add(pid)
            os.kill(pid, signal.SIGKILL)
            self.report.killed_workers += 1

    def _kill_a_node(self) -> None:
        node = self._nodes.pop(self._random.randrange(len(self._nodes)))
        node.signal_tree(signal.SIGSTOP)  # So that it starts no worker that nobody has seen.
        self.killed.update(node.tree)
        node.kill()
        self.report.killed_nodes += 1
        self._start_node()

    def _restart(self) -> None:
        assert self.server is not None
        for node in self._nodes:
            node.await_workers(2)  # One that starts without a server ends at once, as it should.
        if self._random.random() < 0.5:
            self.server.kill()
        else:
            self.server.stop()
        self.server.start()
        ready, before = time.monotonic(), self._done()
        await_that(lambda: self._done() > before or self._unfinished() == 0, "the nodes go on after a restart", 20)
        self.report.longest_silence_after_a_restart = max(
            self.report.longest_silence_after_a_restart, round(time.monotonic() - ready, 2)
        )
        self.report.restarts += 1

    # --- looking ---------------------------------------------------------------------------------------------

    def _done(self) -> int:
        return int(self.rows("SELECT COUNT(*) FROM tq_history")[0][0])

    def _unfinished(self) -> int:
        return int(self.rows("SELECT COUNT(*) FROM tq_jobs")[0][0])

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Read past every proxy."""
        return self.house.rows(sql)

    @property
    def errors_of_pushers(self) -> dict[str, int]:
        return dict(self._errors)

    @property
    def log(self) -> str:
        return "\n".join(file.read_text() for file in self._logs)


class Check:
    """The invariants, each exact."""

    def __init__(self, run: RoughRun) -> None:
        self._run = run
        self._report = run.report

    @cached_property
    def _starts(self) -> dict[UUID, list[Line]]:
        starts: dict[UUID, list[Line]] = defaultdict(list)
        for line in self._run.house.lines:
            starts[line.job].append(line)
        return {job_id: sorted(lines, key=lambda line: line.lease) for job_id, lines in starts.items()}

    @cached_property
    def _history(self) -> dict[UUID, tuple[Any, ...]]:
        rows = self._run.rows("SELECT id, state, lease, crashes, losses FROM tq_history")
        return {row[0] if isinstance(row[0], UUID) else UUID(bytes=bytes(row[0])): tuple(row[1:]) for row in rows}

    def all(self) -> None:
        """Check everything."""
        self._jobs()
        self._second_starts()
        self._counts()
        self._logs()

    def _require(self, truth: object, what: str) -> None:
        if not truth:
            self._report.faults.append(what)

    def _jobs(self) -> None:
        report, history = self._report, self._history
        pushed = set(self._run.pushed)
        report.acknowledged, report.stored = len(pushed), len(history)
        report.completed = sum(row[0] == State.COMPLETED.code for row in history.values())
        report.starts = sum(map(len, self._starts.values()))
        self._require(pushed <= history.keys(), f"{len(pushed - history.keys())} acknowledged jobs are lost")
        self._require(history.keys() == self._starts.keys(), "what is in history has started, and nothing else")
        self._require(report.completed == report.stored, "every job has completed")
        self._require(not self._run.rows("SELECT id FROM tq_jobs LIMIT 1"), "no live job is left")
        unasked = history.keys() - pushed
        self._require(
            not unasked or report.errors_of_pushers or self._run.errors_of_pushers, "no job came from nowhere"
        )

    def _second_starts(self) -> None:
        again = [lines for lines in self._starts.values() if len(lines) > 1]
        self._report.started_more_than_once = len(again)
        twice = Counter((line.job, line.lease) for lines in self._starts.values() for line in lines)
        self._require(max(twice.values(), default=1) == 1, "no (job, lease) has started twice")
        innocent = [line for lines in again for line in lines[:-1] if line.pid not in self._run.killed]
        self._require(
            not innocent, f"{len(innocent)} jobs started again though nobody killed their worker: {innocent[:5]}"
        )
        for job_id, (_, lease, crashes, losses) in self._history.items():
            lines = self._starts.get(job_id)
            self._require(not lines or lines[-1].lease == lease, f"the last start of {job_id} is the one that counted")
            self._require(crashes + losses <= lease - 1, f"each crash and loss of {job_id} has cost a lease")

    def _counts(self) -> None:
        rows, stored = self._run.rows, self._report.stored
        counters = {int(state): int(jobs) for state, jobs in rows(
            "SELECT state, SUM(jobs) FROM tq_counters GROUP BY state HAVING SUM(jobs) <> 0"
        )}  # fmt: skip
        self._require(counters == {State.COMPLETED.code: stored}, f"the counters are {counters}, {stored} are stored")
        ((completed, failed),) = rows("SELECT SUM(completed), SUM(failed) FROM tq_rollups")
        self._require((int(completed), int(failed)) == (stored, 0), f"the rollups say {completed} and {failed}")
        ended = rows("SELECT job_id, lease FROM tq_attempts")
        ((charged,),) = rows("SELECT COALESCE(SUM(crashes) + SUM(losses), 0) FROM tq_history")
        self._require(len(ended) == int(charged), f"{len(ended)} attempts are on record, {charged} were charged")
        self._require(len(ended) == len(set(ended)), "no (job, lease) has ended twice")

    def _logs(self) -> None:
        log = self._run.log
        self._report.errors_of_pushers = self._run.errors_of_pushers
        shapes = Counter(shape(line) for line in log.splitlines() if line.strip())
        self._report.lines_of_nodes = dict(shapes.most_common(25))
        about_locks = [line for line in (*log.splitlines(), *self._run.errors_of_pushers) if _ABOUT_LOCKS.search(line)]
        self._require(not about_locks, f"{len(about_locks)} lock errors reached a user: {about_locks[:3]}")
        self._require("Traceback" not in log, "no node has shown a traceback")


def shape(line: str) -> str:
    """Return a line without what differs between lines of its kind."""
    return _CHANGING.sub("#", line)[:200]


def rough_run(folder: Path, server: PrivateServer, *, patience: float = 100.0, **options: int) -> Report:
    """Run on a new database of a server that is ours."""
    name = server.new_database()
    migrate.upgrade(server.url(name))
    house = House(folder, Database(SERVERS[server.scheme], server.url(name)))
    try:
        return RoughRun(house, server, **options).run(patience)
    finally:
        house.close()


def _on_given(folder: Path, url: str, patience: float, options: dict[str, int]) -> Report:
    migrate.reset(url)
    house = House(folder, Database(SERVERS[make_url(url).get_backend_name()], url))
    try:
        return RoughRun(house, None, **options).run(patience)
    finally:
        house.close()


def main() -> int:
    """Run as the command line asks, print the report and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", choices=KINDS, help="start a server of this kind, which is restarted")
    where.add_argument("--url", help="use this database, whose server is left alone")
    for name, default in {"jobs": 20_000, "nodes": 4, "kills": 40, "restarts": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--patience", type=float, default=170.0, help="seconds after which the run has failed")
    asked = parser.parse_args()
    options = {name: getattr(asked, name) for name in ("jobs", "nodes", "kills", "restarts", "seed")}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskqueue-rough-")))
        if asked.server:
            server = KINDS[asked.server]()
            stack.callback(server.close)
            report = rough_run(folder, server, patience=asked.patience, **options)
        else:
            report = _on_given(folder, asked.url, asked.patience, options)
    sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())

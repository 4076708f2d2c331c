"""See the queue at work on real files: ``python demo.py [FOLDER] [--database-url URL]``.

One job for each file of the folder, two nodes with four workers, a job that is retried, one that fails, a worker killed
on purpose. Everything happens in a temporary folder on a local database, or on the empty database of a server, which is
left as it was; and every figure is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

try:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
    from sqlalchemy import select

    from taskqueue import Job, JobRecord, Priority, QueueManager, State, TaskQueueError, __version__, task
    from taskqueue.drivers import database_file, migrate, open_driver
    from taskqueue.drivers.schema import Fit
    from taskqueue.drivers.tables import metadata
    from taskqueue.options import options_of
    from taskqueue.payload import generate_key
    from taskqueue.payload.serialization import encode
    from taskqueue.settings import GROUPS, load_settings, mask_url
except ModuleNotFoundError as missing:
    sys.exit(f"demo: the module {missing.name} is missing; run 'make demo', which installs what is needed")

HERE = Path(__file__).resolve().parent
MOST_FILES, LARGEST_FILE = 2_000, 8 * 1024 * 1024
PATIENCE = 60.0
"""Seconds after which the demo gives up waiting; it usually needs a few."""
FILES, REPORTS, TRIALS = "files", "reports", "trials"
LOG = "nodes.log"
OTHERS = 44
"""Jobs beside those for files: 1 report, 40 in order, 1 retried, 1 failed, 1 whose worker is killed."""
LEVELS = (Priority.URGENT, Priority.HIGH, Priority.NORMAL, Priority.LOW)


# --- the jobs: workers import them from this module ------------------------------------------------------------------


@task(queue=FILES)
def measure_file(path: str) -> dict[str, Any]:
    """Measure one file."""
    return measure(Path(path))


@task(queue=REPORTS, priority=Priority.HIGH)
def report(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the file jobs returned."""
    return add_up(measured)


@task(queue=TRIALS)
def note_start() -> int:
    """Return when it started, on the machine's monotonic clock."""
    return time.monotonic_ns()


class Flaky(Job):
    """Fail in the first attempt, as where a service is down for a moment."""

    queue, max_attempts, retry_interval = TRIALS, 3, 0.2

    def handle(self) -> str:
        if self.attempt == 1:
            raise ConnectionError(f"no answer from {self.payload}")
        return "answered"


@task(queue=TRIALS, max_attempts=2, retry_interval=0.2)
def hopeless(subject: str) -> None:
    """Fail until no attempt is left."""
    raise ValueError(f"nothing can be done about {subject}")


@task(queue=TRIALS)
def long(notes: str) -> None:
    """Note where and when it runs; the first run then waits for somebody to kill its worker."""
    with Path(notes).open("a+", encoding="ascii") as file:
        file.write(f"{os.getpid()} {time.monotonic_ns()}\n")
        file.seek(0)
        first = len(file.readlines()) == 1
    if first:
        threading.Event().wait(PATIENCE)


def measure(path: Path) -> dict[str, Any]:
    """Return size, SHA-256, lines and the best of zlib's levels for a file."""
    content = path.read_bytes()
    packed = [len(zlib.compress(content, level)) for level in range(1, 10)]
    return {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "lines": content.count(b"\n"),
        "packed": min(packed),
    }


def add_up(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums over files, and one digest over theirs."""
    digests = "".join(sorted(each["sha256"] for each in measured))
    sums = {name: sum(each[name] for each in measured) for name in ("bytes", "lines", "packed")}
    return {"files": len(measured), **sums, "sha256": hashlib.sha256(digests.encode()).hexdigest()}


# --- the stage: a database, nodes, a screen --------------------------------------------------------------------------


class CheckFailed(Exception):
    """Something that the queue promises did not hold."""


def check(holds: bool, promise: str) -> None:  # noqa: FBT001 - a condition and its words
    """Raise `CheckFailed` unless the promise holds."""
    if not holds:
        raise CheckFailed(f"this did not hold: {promise}")


@dataclass(frozen=True)
class Place:
    """The database that is played on."""

    url: str
    key_file: Path | None = None
    """Where a server's payloads have their key; beside a file one is made by itself."""
    made_tables: bool = False

    @property
    def variables(self) -> dict[str, str]:
        """Return the settings by which commands find it."""
        key = {} if self.key_file is None else {"ENCRYPTION_KEY_FILE": str(self.key_file)}
        return {"DATABASE_URL": self.url, **key}

    def clear(self) -> None:
        """Leave the database of a server as it was found: empty, or without tables."""
        if database_file(self.url) is None:
            (migrate.remove if self.made_tables else migrate.reset)(self.url)


@dataclass
class Stage:
    """What all acts share: where things are, who works, what was measured."""

    home: Path
    place: Place
    source: Path
    files: list[str]
    console: Console
    manager: QueueManager
    secret: str = field(default_factory=lambda: secrets.token_hex(12))
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)

    def say(self, act: str, what: str, figure: str = "") -> None:
        """Print one line of the story: what was done on the left, the figure on the right."""
        room = min(self.console.width, 80) - 12 - len(figure)
        self.console.print(f" [bold cyan]{act:<8}[/] {escape(what):<{room}} [green]{figure}[/]", soft_wrap=True)

    def start_node(self, *arguments: str) -> None:
        """Start a real node, by the command that a user would type."""
        command = [sys.executable, "-m", "taskqueue.cli", "queue:work", *arguments, "--import=demo", "--max-time=300"]
        with (self.home / LOG).open("ab") as log:
            node = subprocess.Popen(command, cwd=self.home, env=environment(self.place), stdout=log, stderr=log)  # noqa: S603
        self.nodes.append(node)

    def await_true(self, holds: Callable[[], bool], promise: str) -> None:
        """Wait until something holds; raise `CheckFailed` when it takes too long or a node has ended."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            ended = [node.returncode for node in self.nodes if node.poll() is not None]
            check(not ended, f"{promise}; a node ended before, with exit code {ended and ended[0]}")
            check(time.monotonic() < deadline, f"{promise} within {PATIENCE:.0f} s")
            threading.Event().wait(0.01)

    def close(self) -> None:
        """End every node that still runs."""
        self.manager.disconnect()
        for node in self.nodes:
            if node.poll() is None:
                node.kill()
            node.wait()


def find_place(home: Path, url: str | None) -> Place:
    """Return the database to play on: in the demo's own folder, or the one named, which must hold nothing."""
    if url is None:
        return Place(f"sqlite:///{home / 'queue.db'}")
    address = load_settings(keywords={"database": {"url": url}}, environ={}, directory=home).settings.database.url
    if database_file(address) is not None:
        raise CheckFailed("--database-url is for servers; without it the demo makes a database in a folder of its own")
    made = migrate.upgrade(address).fit is Fit.MISSING
    refuse_used(address)
    key = home / "queue.key"
    key.touch(mode=0o600)
    key.write_text(generate_key() + "\n", encoding="ascii")
    return Place(address, key, made)


def refuse_used(address: str) -> None:
    """Raise `CheckFailed` where others have stored something: their jobs would be worked on, and cleared away."""
    with contextlib.closing(open_driver(address)) as driver:
        held = sum(sum(queue.counts.values()) for queue in driver.queues()), len(driver.nodes()), len(driver.keys())
        if any(held):
            jobs, nodes, keys = held
            raise CheckFailed(
                f"{driver.describe()} is in use ({jobs:,} jobs, {nodes} nodes, {keys} keys) and was not touched:"
                " name a database without jobs"
            )


def environment(place: Place) -> dict[str, str]:
    """Return an environment with the demo's settings and none of the user's own."""
    ours = {name for group in GROUPS.values() for option in options_of(group) for name in option.env}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | place.variables | {"PYTHONPATH": str(HERE)}


@contextlib.contextmanager
def staged(source: Path, console: Console, url: str | None, *, keep: bool) -> Iterator[Stage]:
    """Yield a stage in a folder of its own, and clear everything away afterwards, or say where it is kept."""
    files = files_of(source, console)
    home = Path(tempfile.mkdtemp(prefix="taskqueue-demo-"))
    with contextlib.ExitStack() as afterwards:
        if not keep:
            afterwards.callback(shutil.rmtree, home, ignore_errors=True)
        place = find_place(home, url)
        if keep:
            shown = " ".join(f"{name}={mask_url(value)}" for name, value in place.variables.items())
            afterwards.callback(console.print, f"\n Kept: {shown}", soft_wrap=True)
        else:
            afterwards.callback(place.clear)
        yield afterwards.enter_context(on_stage(home, place, source, files, console))


@contextlib.contextmanager
def on_stage(home: Path, place: Place, source: Path, files: list[str], console: Console) -> Iterator[Stage]:
    """Yield a stage, and end its nodes afterwards."""
    quiet = logging.getLogger("demo")
    quiet.setLevel(logging.CRITICAL)
    given: dict[str, dict[str, Any]] = {"database": {"url": place.url}, "encryption": {"key_file": place.key_file}}
    settings = load_settings(keywords=given, environ={}, directory=home).settings
    stage = Stage(home, place, source, files, console, QueueManager(settings=settings, logger=quiet))
    try:
        yield stage
    except CheckFailed:
        lines = (home / LOG).read_text(errors="replace").splitlines() if stage.nodes else []
        console.print("\n".join(["", *lines[-8:]]), style="dim", markup=False, soft_wrap=True)
        raise
    finally:
        stage.close()


def files_of(source: Path, console: Console) -> list[str]:
    """Return a folder's files without hidden ones and caches; say how many are left out for size or number."""
    found = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file() and os.access(path, 4)]
    seen = [path for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)]
    taken = [path for path in seen if (source / path).stat().st_size <= LARGEST_FILE][:MOST_FILES]
    if len(taken) < len(seen):
        left_out = f"{len(seen) - len(taken):,} of {len(seen):,} files are left out: too large or too many"
        console.print(f" [yellow]{left_out}[/]\n")
    if not taken:
        raise CheckFailed(f"{source} holds no file that can be read; name a folder that does")
    return [str(path) for path in taken]


# --- the acts --------------------------------------------------------------------------------------------------------


def act_start(stage: Stage) -> None:
    """Open the database and start two nodes with four workers."""
    began = time.monotonic()
    with stage.console.status(" two nodes start"):
        stage.manager.connect()
        stage.manager.pause_queue(TRIALS)
        stage.manager.pause_queue(REPORTS)
        stage.start_node(FILES, REPORTS, "--workers=3", "--node-name=files")
        stage.start_node(TRIALS, "--workers=1", "--node-name=trials")
        stage.await_true(lambda: len(stage.manager.get_worker_health()) == 2, "two nodes report for work")
    stage.say("Start", "a new database with a new key, 2 nodes, 4 workers", f"{time.monotonic() - began:.2f} s")


def act_push(stage: Stage) -> list[UUID]:
    """Push one job for each file: the smaller, the more urgent."""
    by_size = sorted(stage.files, key=lambda name: (stage.source / name).stat().st_size)
    jobs = [
        measure_file.job(str(stage.source / name)).configure(
            priority=LEVELS[index * len(LEVELS) // len(by_size)],
            tags=["demo", Path(name).suffix.lstrip(".")[:32] or "plain"],
        )
        for index, name in enumerate(by_size)
    ]
    began = time.monotonic()
    ids = stage.manager.push_many(jobs)
    rate = f"{len(ids) / (time.monotonic() - began):,.0f} jobs/s"
    stage.say("Push", f"one job for each of {len(ids):,} files in {stage.source.name[:30]}/", rate)
    stage.figures.append(("pushed and sealed, in one transaction", f"{len(ids):,} jobs, {rate}"))
    return ids


def act_work(stage: Stage, ids: Sequence[UUID]) -> list[JobRecord]:
    """Watch three workers do the files, and return the records."""
    watch_files(stage, len(ids))
    records = stage.manager.wait_for(ids, timeout=PATIENCE)
    wrong = [record for record in records if record.state is not State.COMPLETED]
    check(not wrong, f"every file job completes; {len(wrong)} did not, the first for {wrong and wrong[0].error}")
    starts = [record.started_at for record in records if record.started_at is not None]
    ends = [record.finished_at for record in records if record.finished_at is not None]
    rate = f"{len(ids) / max(seconds(max(ends) - min(starts)), 1e-6):,.0f} jobs/s"
    stage.say("Work", "digest, lines and best packing of each, by 3 workers", rate)
    stage.figures.append(("worked off, from first start to last end", f"{len(ids):,} jobs, {rate}"))
    tagged = stage.manager.count_jobs(tag="demo", queue=FILES)
    check(tagged == len(ids), f"their tag finds all {len(ids)} jobs; it found {tagged}")
    return records


def watch_files(stage: Stage, total: int) -> None:
    """Show a bar on a terminal, a line each second in a pipe, until every file job has finished."""
    columns = TextColumn(" [bold cyan]Work    [/]"), BarColumn(48), MofNCompleteColumn()
    terminal = stage.console.is_terminal
    with Progress(*columns, console=stage.console, transient=True, disable=not terminal) as bar:
        shown, spoken = bar.add_task("", total=total), time.monotonic()

        def all_done() -> bool:
            nonlocal spoken
            counts = stage.manager.get_queue_stats(FILES)[FILES]["by_state"]
            done: int = counts[State.COMPLETED] + counts[State.FAILED]
            bar.update(shown, completed=done)
            if not terminal and time.monotonic() - spoken >= 1:
                spoken = time.monotonic()
                stage.say("Work", f"{done:,} of {total:,}")
            return done == total

        stage.await_true(all_done, f"{total} jobs finish in the queue {FILES}")


def act_order(stage: Stage) -> None:
    """Push jobs of four priorities in random order, one by one; one worker must start them by priority, then age."""
    levels = [level for level in LEVELS for _ in range(10)]
    random.Random(11).shuffle(levels)
    took, handles = [], []
    for level in levels:
        began = time.monotonic()
        handles.append(stage.manager.push(note_start.job(), priority=level))
        took.append(time.monotonic() - began)
    stage.manager.resume_queue(TRIALS)
    starts = [handle.result(timeout=PATIENCE) for handle in handles]
    started = sorted(range(len(levels)), key=lambda index: starts[index])
    wanted = sorted(range(len(levels)), key=lambda index: (-levels[index], index))
    check(started == wanted, "jobs start by priority, those of one priority by age")
    stage.say("Order", f"{len(levels)} jobs pushed in disorder: urgent first, then the oldest", "kept")
    stage.figures.append(("priority order of 40 jobs in 4 levels kept", "yes"))
    stage.figures.append(("one durable push, median of 40", milliseconds(statistics.median(took))))


def act_report(stage: Stage, records: Sequence[JobRecord]) -> None:
    """Have one job add the results up, and compare its sums with our own count."""
    job = report.job([record.result for record in records])
    handle = stage.manager.push(job)
    row = stage.manager.driver.get(handle.id.bytes)
    stored = len(row.payload or b"") if row is not None else 0
    stage.manager.resume_queue(REPORTS)
    own = add_up([measure(stage.source / name) for name in stage.files])
    check(handle.result(timeout=PATIENCE) == own, "the report's sums are those that the demo counts itself")
    stage.say(
        "Report", f"{own['lines']:,} lines, {own['bytes']:,} bytes, {own['packed']:,} packed", "counted again: same"
    )
    stage.figures.append(
        ("the report's payload, packed and sealed", f"{len(encode(job.payload)):,} -> {stored:,} bytes")
    )


def act_failure(stage: Stage) -> None:
    """Let one job fail once and one for good."""
    jobs = Flaky(stage.secret), hopeless.job(stage.secret)
    saved, lost = stage.manager.wait_for([stage.manager.push(job) for job in jobs], PATIENCE)
    check(saved.state is State.COMPLETED and saved.attempt == 2, "a job that failed once completes in its 2nd attempt")
    check(lost.state is State.FAILED and lost.attempt == 2, "a job without attempts left ends as failed")
    listed = [record.id for record in stage.manager.get_failed_jobs()]
    check(listed == [lost.id], "the list of failed jobs holds this one alone")
    first, last = saved.attempts[0].error, lost.error
    check(first is not None and last is not None and stage.secret in last.message, "errors can be read with the key")
    pause = seconds((saved.started_at or saved.created_at) - saved.attempts[0].finished_at)
    stage.say("Retry", f"{first and first.type}, then done in attempt 2 of 3", f"after {pause:.2f} s")
    stage.say("Failure", f"{last and last.type} in 2 of 2 attempts: kept, with its traceback", "failed")


def act_crash(stage: Stage) -> None:
    """Kill a worker in the middle of a job, and see the job taken over."""
    notes = stage.home / "starts"
    handle = stage.manager.push(long.job(str(notes)))
    stage.await_true(lambda: notes.exists() and notes.read_text().endswith("\n"), "the long job starts")
    pid = int(notes.read_text().split()[0])
    killed = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    record = handle.wait(PATIENCE)
    starts = [line.split() for line in notes.read_text().splitlines()]
    check(len(starts) == 2 and starts[1][0] != str(pid), "the killed worker's job is started again, in another one")
    check(record.state is State.COMPLETED and record.crashes == 1, "it completes, with one crash on its account")
    took = (int(starts[1][1]) - killed) / 1e9
    check(took < 1, f"it is taken over within 1 s; it took {took:.2f} s")
    stage.say("Crash", f"worker {pid} killed (SIGKILL), its job run by {starts[1][0]}", milliseconds(took))
    stage.figures.append(("job of the killed worker started again after", milliseconds(took)))


def act_at_rest(stage: Stage, records: Sequence[JobRecord]) -> None:
    """Search all that is stored for what went through it."""
    texts = [stage.secret, *(str(stage.source / name) for name in stage.files)]
    texts += [record.result["sha256"] for record in records]
    content, where = stored_bytes(stage)
    found = [text for text in texts if os.fsencode(text) in content]
    check(FILES.encode() in content, "the search finds the name of a queue, which is stored in clear")
    check(not found, f"no payload, result or error can be read at rest; {len(found)} texts were found")
    stage.say("At rest", f"{len(texts):,} known texts sought in {len(content):,} bytes {where}", "none found")


def stored_bytes(stage: Stage) -> tuple[bytes, str]:
    """Return the content of the database's files, or of every table of ours on a server; and which of both it is."""
    if database_file(stage.place.url) is not None:
        stage.manager.disconnect()  # Closing a file drops the locks that SQLite holds on it in the same process.
        paths = [path for path in stage.home.glob("queue.db*") if path.suffix != ".key"]
        return b"".join(path.read_bytes() for path in paths), "on disk"
    driver: Any = stage.manager.driver
    rows = driver.read(lambda link: [row for each in metadata.sorted_tables for row in link.execute(select(each))])
    values = (value for row in rows for value in row)
    return b"\n".join(each if isinstance(each, bytes) else str(each).encode() for each in values), "of rows"


def act_stop(stage: Stage) -> None:
    """Ask the nodes to stop, as a service manager does."""
    began = time.monotonic()
    for node in stage.nodes:
        node.send_signal(signal.SIGTERM)
    codes = [node.wait(PATIENCE) for node in stage.nodes]
    took = time.monotonic() - began
    check(codes == [0, 0], f"nodes end with exit code 0 after SIGTERM; they ended with {codes}")
    pushed, finished = len(stage.files) + OTHERS, stage.manager.count_jobs(state=[State.COMPLETED, State.FAILED])
    check(finished == pushed, f"every job pushed has finished; {pushed:,} were pushed, {finished:,} finished")
    stage.figures.insert(0, ("jobs pushed, and finished by the end", f"{pushed:,}, {finished:,}"))
    stage.say("Stop", "SIGTERM to both nodes: drained, exit code 0", f"{took:.2f} s")


# --- the end ---------------------------------------------------------------------------------------------------------


def seconds(span: timedelta) -> float:
    """Return a span of time in seconds."""
    return span / timedelta(seconds=1)


def milliseconds(length: float) -> str:
    """Return a short time in milliseconds, from one second on in seconds."""
    return f"{length * 1e3:.3g} ms" if length < 0.9995 else f"{length:.2f} s"


def queue_table(manager: QueueManager) -> Table:
    """Return one row for each queue: what was done, and how long jobs waited and ran."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for title in ("Queue", "Done", "Failed", "Retried", "Wait p50", "Wait p95", "Run p50", "Run p95"):
        table.add_column(title, justify="left" if title == "Queue" else "right", no_wrap=True)
    retried = {name: each["retried"] for name, each in manager.get_performance_metrics()["queues"].items()}
    for name, stats in manager.get_queue_stats().items():
        records = manager.get_jobs(queue=name, limit=MOST_FILES + 100)
        waits = sorted(seconds(each.started_at - each.ready_at) for each in records if each.started_at)
        runs = sorted(each.duration or 0.0 for each in records)
        times = [milliseconds(values[int(len(values) * share)]) for values in (waits, runs) for share in (0.5, 0.95)]
        done, failed = stats["by_state"][State.COMPLETED], stats["by_state"][State.FAILED]
        table.add_row(name, f"{done:,}", f"{failed:,}", f"{retried.get(name, 0):,}", *times)
    return table


def next_commands() -> list[str]:
    """Return three commands to try next, as they can be typed here."""
    installed = Path(sys.executable).with_name("worker")
    python = os.path.relpath(sys.executable)
    worker = os.path.relpath(installed) if installed.exists() else f"{python} {os.path.relpath(HERE / 'worker')}"
    return [f"{worker} {rest}" for rest in ("queue:test --jobs=10", "queue:work --stop-when-empty", "queue:status")]


def play(source: Path, console: Console, url: str | None = None, *, keep: bool) -> None:
    """Play every act in its order."""
    where = "SQLite in a temporary folder" if url is None else mask_url(url)
    console.print(f"\n [bold]taskqueue {__version__}[/]: {escape(where)}, AES-256-GCM, zstd\n", soft_wrap=True)
    began = time.monotonic()
    with staged(source, console, url, keep=keep) as stage:
        act_start(stage)
        ids = act_push(stage)
        records = act_work(stage, ids)
        act_report(stage, records)
        act_order(stage)
        act_failure(stage)
        act_crash(stage)
        act_at_rest(stage, records)
        act_stop(stage)
        facts = Table(box=None, show_header=False, padding=(0, 1))
        for name, figure in stage.figures:
            facts.add_row(name, f"[green]{figure}[/]")
        console.print("", queue_table(stage.manager), "", facts, sep="\n")
    console.print(f"\n Everything held, in {time.monotonic() - began:.1f} s. Next:\n")
    for command in next_commands():
        console.print(f"   [bold]{escape(command)}[/]", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo; return 0 when every check held."""
    parser = argparse.ArgumentParser(prog="demo.py", description="See the task queue at work on real files.")
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "taskqueue", help="whose files are measured")
    parser.add_argument("--database-url", metavar="URL", help="an empty database on a server; its tables are made")
    parser.add_argument("--keep", action="store_true", help="leave the database behind, to look at")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="save what was shown as a picture")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is no folder; name one that holds files, or none for the package's own")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))  # so that nodes are ended, files removed
    console = Console(highlight=False, record=given.svg is not None, width=80 if given.svg is not None else None)
    try:
        play(given.folder.resolve(), console, given.database_url, keep=given.keep)
    except KeyboardInterrupt:
        return 130
    except (CheckFailed, TaskQueueError, subprocess.TimeoutExpired) as failure:
        console.print(f"\n[bold red]demo failed:[/] {escape(str(failure))}", soft_wrap=True)
        return 1
    if given.svg is not None:
        console.save_svg(str(given.svg), title="python demo.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())

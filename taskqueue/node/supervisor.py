"""A node: the process that ``queue:work`` is. It supervises; it runs no job and opens no payload."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections.abc import Sequence

from taskqueue.clock import SYSTEM_CLOCK, Clock
from taskqueue.doorbell import Doorbell
from taskqueue.errors import TaskQueueError
from taskqueue.events import Events
from taskqueue.node.dispatcher import Dispatcher
from taskqueue.node.housekeeping import Housekeeping
from taskqueue.node.identity import describe_node
from taskqueue.node.lease import NodeLease
from taskqueue.node.nursery import Nursery, Upbringing
from taskqueue.node.pool import Pool
from taskqueue.node.recycling import Limits
from taskqueue.node.signals import Signals
from taskqueue.node.slots import Slots
from taskqueue.node.tally import Counts, Tally
from taskqueue.node.wire import Channel
from taskqueue.settings import Settings
from taskqueue.store import Store, open_store

BUSY_TICK, IDLE_TICK = 0.05, 0.5
LEAVE_WITHIN, GONE_WITHIN, WRITTEN_WITHIN = 2.0, 5.0, 35.0
SPARE_SLOTS = 4
"""Room for workers that are about to leave while their replacements stand ready."""
MOST_PER_CORE = 4
EVERY_QUEUE = "*"

_logger = logging.getLogger("taskqueue.node")


class Node:
    """A supervisor with its template, dispatcher and workers, serving ``queues`` in order (None: every queue)."""

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[str] | None = ("default",),
        *,
        events: Events | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._settings = settings
        self._queues = None if queues is None or EVERY_QUEUE in queues else tuple(dict.fromkeys(queues))
        self._clock = clock
        self._tally = Tally(events or Events())
        self._started_at = 0.0
        self._stop_asked = threading.Event()

    @property
    def counts(self) -> Counts:
        """Return how many jobs have ended how."""
        return self._tally.counts

    def stop(self) -> None:
        """Ask the node to stop as by a first SIGTERM; may be called from any thread."""
        self._stop_asked.set()

    def run(self) -> int:
        """Work until asked to stop, out of time, or out of jobs if so set; return the exit code.

        Installs handlers for SIGTERM and SIGINT, so call it in the main thread. Drained, handed back and at a limit
        all are 0. Raises `ConfigurationError` for settings, keys, schema or job modules that do not fit.
        """
        with Signals() as signals:
            store = open_store(self._settings, self._clock)
            try:
                return self._run_with(store, signals)
            finally:
                store.close()

    def _run_with(self, store: Store, signals: Signals) -> int:
        for notice in store.notices:
            _logger.warning("%s", notice)
        worker = self._settings.worker
        slots = Slots.create(worker.workers + SPARE_SLOTS)
        general = self._settings.general
        upbringing = Upbringing(worker.imports, store.ring, general.log_level, general.log_format)
        dispatcher = Dispatcher(
            store.another_driver(self._settings.database.node_durability, self._clock),
            store.another_driver("full", self._clock),
            store.codec,
            slots,
            self._clock,
            self._tally,
            queues=self._queues,
            job_timeout=worker.job_timeout,
        )
        dispatcher.hints.hang(Doorbell(store.identity))
        limits = Limits(worker.max_jobs, worker.timeout, worker.memory)
        pool = Pool(
            worker.workers, limits, slots, self._clock, dispatcher, self._tally, lambda: Nursery(upbringing, slots)
        )
        running = RunningNode(self._settings, self._queues, store, dispatcher, pool, signals, self._clock, self._tally)
        try:
            return running.work(self._stop_asked)
        finally:
            running.close()
            slots.close()


class RunningNode:
    """The parts of a node while it runs, and the supervisor's own loop over them."""

    def __init__(
        self,
        settings: Settings,
        queues: tuple[str, ...] | None,
        store: Store,
        dispatcher: Dispatcher,
        pool: Pool,
        signals: Signals,
        clock: Clock,
        tally: Tally,
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._store = store
        self._dispatcher = dispatcher
        self._pool = pool
        self._signals = signals
        self._clock = clock
        self._tally = tally
        self._thread = threading.Thread(target=dispatcher.run, name="taskqueue-dispatcher", daemon=True)
        self._lease: NodeLease | None = None
        self._housekeeping: Housekeeping | None = None
        self._node_id = 0
        self._killed_for_lease = False
        self._forgotten: threading.Event | None = None

    def work(self, stop_asked: threading.Event) -> int:
        """Start everything, supervise until it is over, stop everything."""
        self._await_template()
        self._register()
        self._thread.start()
        self._dispatcher.claiming.set()
        try:
            self._supervise(stop_asked)
        finally:
            self._wind_down()
        _logger.info("stopped: %s", self._tally.counts.describe())
        unwritten = self._dispatcher.unwritten
        if unwritten:
            _logger.error("%d outcome(s) could not be written: those jobs will run again", unwritten)
        return 1 if self._failed() or unwritten else 0

    def close(self) -> None:
        """End what still runs, whatever state it is in."""
        self._pool.close()
        if self._housekeeping is not None:
            self._housekeeping.stop()
        self._dispatcher.ending.set()
        self._dispatcher.wake()
        if self._thread.is_alive():
            self._thread.join(0.5 if self._hurried else 5.0)
        if not self._thread.is_alive():  # Otherwise it waits for the store still, and what it uses stays open.
            self._dispatcher.close()

    # --- start -----------------------------------------------------------------------------------------------

    def _await_template(self) -> None:
        """Wait until the job modules are imported: a failing import ends the node before it is known to anybody."""
        while self._pool.nursery is None or not self._pool.nursery.ready:
            self._pool.tend()
            if self._signals.stops:
                return
            self._sleep(BUSY_TICK)

    def _register(self) -> None:
        worker = self._settings.worker
        info = {
            "queues": list(self._queues) if self._queues is not None else [EVERY_QUEUE],
            "workers": worker.workers,
            "key_ids": list(self._store.codec.key_ids),
        }
        identity = describe_node(worker.node_name, worker.lease, info)
        driver = self._store.driver
        self._node_id = driver.register_node(identity)
        self._dispatcher.node_id = self._node_id
        self._lease = NodeLease(driver, self._node_id, worker.lease, self._clock, self._pool.hold_lease_until)
        self._killed_for_lease = False
        self._housekeeping = Housekeeping(
            self._store.driver, self._dispatcher, self._lease, self._node_id, self._settings, self._clock, self._classes
        )
        self._housekeeping.start()
        served = ", ".join(self._queues) if self._queues is not None else "every queue"
        _logger.info(
            "node %d (%s, pid %d) serves %s with %d worker(s) on %s",
            self._node_id, identity.name, os.getpid(), served, worker.workers, driver.describe(),
        )  # fmt: skip

        cores = os.cpu_count() or 1
        if worker.workers > MOST_PER_CORE * cores:
            _logger.warning("%d workers share %d core(s): jobs that compute will take turns", worker.workers, cores)

    def _classes(self) -> tuple[str, ...]:
        nursery = self._pool.nursery
        return nursery.classes if nursery is not None else ()

    # --- the loop --------------------------------------------------------------------------------------------

    def _supervise(self, stop_asked: threading.Event) -> None:
        worker = self._settings.worker
        ends_at = self._clock.monotonic() + worker.max_time if worker.max_time is not None else None
        while not (self._signals.stops or stop_asked.is_set() or self._failed()):
            if ends_at is not None and self._clock.monotonic() >= ends_at:
                _logger.info("--max-time is over")
                return
            if worker.stop_when_empty and self._housekeeping is not None and self._housekeeping.empty.is_set():
                return
            self._pool.tend()
            self._guard_lease()
            self._sleep(BUSY_TICK if self._dispatcher.in_hand else min(IDLE_TICK, worker.lease / 20))

    def _failed(self) -> bool:
        if self._dispatcher.failure is not None:
            return True
        return self._housekeeping is not None and self._housekeeping.failure is not None

    def _guard_lease(self) -> None:
        """Stop claiming when a beat fails, kill the workers before the lease ends, begin anew once that is settled."""
        lease = self._lease
        if lease is None:
            return
        if lease.must_stop and not self._killed_for_lease:
            self._killed_for_lease = True
            self._dispatcher.claiming.clear()
            why = "another node declared it dead" if lease.lost.is_set() else "it could not beat"
            _logger.error("node %d stops its workers: %s", self._node_id, why)
            self._pool.stop_all()
        elif self._killed_for_lease and not any(member.stopped for member in self._pool.members):
            self._begin_anew(lease)
        elif lease.shaky.is_set():
            self._dispatcher.claiming.clear()
        elif not self._killed_for_lease:
            self._dispatcher.claiming.set()

    def _begin_anew(self, lease: NodeLease) -> None:
        """Take up work again: under a new node id where this one was declared dead."""
        if not lease.lost.is_set():
            self._killed_for_lease = lease.must_stop
        elif self._forgotten is None:
            self._forgotten = threading.Event()
            self._dispatcher.post(self._dispatcher.drop_everything, self._forgotten)
        elif self._forgotten.is_set():  # Not before: what is claimed under the new id must not be forgotten along.
            self._forgotten = None
            if self._housekeeping is not None:
                self._housekeeping.stop()
            self._register()

    def _sleep(self, seconds: float) -> None:
        """Wait for the template, a signal, or the next tick."""
        waiting: list[int | Channel] = [self._signals.reader, self._dispatcher.attention]
        if self._pool.nursery is not None:
            waiting.append(self._pool.nursery.channel)
        select.select(waiting, [], [], seconds)
        self._signals.drain()
        with contextlib.suppress(BlockingIOError):
            os.read(self._dispatcher.attention, 4096)

    # --- stop ------------------------------------------------------------------------------------------------

    def _wind_down(self) -> None:
        """Stop claiming, let running jobs finish within the grace, hand back the rest, say good-bye."""
        self._dispatcher.claiming.clear()
        self._pool.closing = True
        if self._lease is not None:
            self._lease.state = "draining"
        self._dispatcher.post(self._dispatcher.wind_down)
        self._await_hand_back()
        if self._dispatcher.in_hand:
            _logger.info("stopping: %d job(s) have up to %.0f s to finish", self._dispatcher.in_hand, self._grace())
        self._await_jobs(self._clock.monotonic() + self._grace())
        self._dismiss_workers()
        self._dispatcher.ending.set()
        self._dispatcher.wake()
        self._thread.join(0.5 if self._hurried else WRITTEN_WITHIN)
        if self._housekeeping is not None:
            self._housekeeping.stop(0.5 if self._hurried else 5.0)
        if not self._hurried:
            self._say_goodbye()

    @property
    def _hurried(self) -> bool:
        """Say whether a second signal asked to leave now."""
        return self._signals.stops >= 2

    def _await_hand_back(self) -> None:
        """Wait until the dispatcher has stopped claiming; it may be in the middle of a claim."""
        deadline = self._clock.monotonic() + self._grace()
        while not self._dispatcher.handed_back.is_set() and self._clock.monotonic() < deadline:
            if self._hurried or self._dispatcher.failure is not None or not self._thread.is_alive():
                return
            self._tend_shortly()

    def _grace(self) -> float:
        return self._settings.worker.grace

    def _await_jobs(self, deadline: float) -> None:
        """Wait until no job is in hand; a second signal ends the wait, however soon it came after the first."""
        while self._dispatcher.in_hand and self._clock.monotonic() < deadline and self._dispatcher.failure is None:
            if self._hurried:
                return
            self._tend_shortly()

    def _dismiss_workers(self) -> None:
        """Let idle workers leave, so that they flush what they print; kill those that still run a job."""
        for member in self._pool.members:
            self._dispatcher.post(self._dispatcher.retire, member)
        leave_by = self._clock.monotonic() + LEAVE_WITHIN
        while self._pool.members and not self._dispatcher.in_hand and self._clock.monotonic() < leave_by:
            self._tend_shortly()
        self._pool.stop_all()
        gone_by = self._clock.monotonic() + GONE_WITHIN
        while (self._pool.members or self._dispatcher.in_hand) and self._clock.monotonic() < gone_by:
            self._tend_shortly()

    def _tend_shortly(self) -> None:
        self._pool.tend()
        self._sleep(BUSY_TICK / 5)

    def _say_goodbye(self) -> None:
        if self._node_id:
            try:
                self._store.driver.stop_node(self._node_id)
            except TaskQueueError as error:
                _logger.warning("could not note the stop: %s", error)

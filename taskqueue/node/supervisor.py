"""A node: the process that ``queue:work`` is. It supervises; it runs no job and opens no payload."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from taskqueue.clock import SYSTEM_CLOCK, Clock
from taskqueue.doorbell import Doorbell
from taskqueue.drivers import settled_url
from taskqueue.drivers.node_verbs import ASKED_TO_DRAIN
from taskqueue.errors import StoreError, TaskQueueError
from taskqueue.events import Events
from taskqueue.node.access import Access
from taskqueue.node.dispatcher import Dispatcher
from taskqueue.node.housekeeping import Housekeeping
from taskqueue.node.identity import describe_node
from taskqueue.node.lease import NodeLease, check_lease, watchdog_tick
from taskqueue.node.nursery import Nursery, Upbringing
from taskqueue.node.orphans import reap_orphans
from taskqueue.node.pool import Pool
from taskqueue.node.readiness import readable
from taskqueue.node.recycling import Limits
from taskqueue.node.scaling import MOST_OWN, Bounds
from taskqueue.node.signals import Signals
from taskqueue.node.slots import Slots
from taskqueue.node.tally import Counts, Tally
from taskqueue.node.wire import Channel
from taskqueue.settings import Settings
from taskqueue.store import Store, open_store

BUSY_TICK = 0.05
BARREN_FOR = 60.0
"""Seconds for which every birth of a worker may fail while there is none, before the node gives up."""
LEAVE_WITHIN, GONE_WITHIN, WRITTEN_WITHIN = 2.0, 5.0, 35.0
SPARE_SLOTS, SPARE_SLOTS_OF_MANY = 4, 32
"""Room for workers that are about to leave while their replacements stand ready. One that runs many jobs at a time
leaves with the longest of them."""
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
            check_lease(self._settings.worker.lease, self._settings.worker.heartbeat)
            store = open_store(self._settings, self._clock)
            try:
                return self._run_with(store, signals)
            finally:
                store.close()

    def _run_with(self, store: Store, signals: Signals) -> int:
        for notice in store.notices:
            _logger.warning("%s", notice)
        worker = self._settings.worker
        bounds = Bounds.of(worker.pm, worker.workers, worker.min_workers, worker.max_workers)
        spare = SPARE_SLOTS if worker.concurrency == 1 else SPARE_SLOTS_OF_MANY
        slots = Slots.create(bounds.most + MOST_OWN + spare, worker.concurrency)
        general = self._settings.general
        url = settled_url(store.url)  # A job module may change the folder.
        access = Access(url, store.identity, worker.lease, worker.heartbeat)
        upbringing = Upbringing(worker.imports, store.ring, general.log_level, general.log_format, store.salt, access)
        database = self._settings.database
        cycles, starts = (store.another_driver(each, self._clock) for each in (database.node_durability, "full"))
        for driver in (store.driver, cycles, starts):
            driver.keep_reserve(database.reserve)
        dispatcher = Dispatcher(
            cycles,
            starts,
            store.codec,
            slots,
            self._clock,
            self._tally,
            queues=self._queues,
            job_timeout=worker.job_timeout,
        )
        dispatcher.hints.hang(Doorbell(store.identity))
        dispatcher.requests.announce = store.announce
        limits = Limits(worker.max_jobs, worker.timeout, worker.memory)
        pool = Pool(bounds, limits, slots, self._clock, dispatcher, self._tally, lambda: Nursery(upbringing, slots))
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
        self._fertile_at = clock.monotonic()
        self._barren = False
        self._housekeeping: Housekeeping | None = None
        self._node_id = 0
        self._killed_for_lease = False
        self._told_to_stop = False
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
        identity = describe_node(worker.node_name, worker.lease, self._standing())
        driver = self._store.driver
        self._node_id = driver.register_node(identity)
        self._dispatcher.node_id = self._node_id
        self._lease = NodeLease(
            driver, self._node_id, worker.lease, self._clock, self._pool.hold_lease_until, self._standing_text,
            self._store.another_driver(self._settings.database.node_durability, self._clock),
        )  # fmt: skip
        self._killed_for_lease = False
        self._housekeeping = Housekeeping(
            self._store.driver, self._dispatcher, self._lease, self._node_id, self._settings, self._clock, self._classes
        )
        self._housekeeping.start()
        served = ", ".join(self._queues) if self._queues is not None else "every queue"
        _logger.info(
            "node %d (%s, pid %d) serves %s with %s on %s",
            self._node_id, identity.name, os.getpid(), served, self._pool.bounds.describe(), driver.describe(),
        )  # fmt: skip

        cores = os.cpu_count() or 1
        if self._pool.bounds.most > MOST_PER_CORE * cores:
            most = self._pool.bounds.most
            _logger.warning("%d workers share %d core(s): jobs that compute will take turns", most, cores)

    def _standing(self) -> dict[str, Any]:
        """Return what the node tells of itself with each beat."""
        worker, bounds, members = self._settings.worker, self._pool.bounds, self._pool.members
        return {
            "queues": list(self._queues) if self._queues is not None else [EVERY_QUEUE],
            "pm": bounds.mode,
            "min_workers": bounds.fewest,
            "max_workers": bounds.most,
            "concurrency": worker.concurrency,
            "workers": len(members) if members else bounds.fewest if not self._node_id else 0,
            "busy": sum(1 for member in members if member.held),
            "in_hand": self._dispatcher.in_hand,
            "healthy": self._pool.healthy,
            "key_ids": list(self._store.codec.key_ids),
        }

    def _standing_text(self) -> str:
        return json.dumps(self._standing())

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
            if self._lease is not None and self._lease.drain_asked.is_set():
                _logger.info("asked to drain")
                return
            if worker.stop_when_empty and self._housekeeping is not None and self._housekeeping.empty.is_set():
                return
            self._pool.tend()
            self._look_for_births()
            self._guard_lease()
            reap_orphans(self._pool.nursery)
            self._sleep(BUSY_TICK if self._dispatcher.in_hand else watchdog_tick(worker.lease))

    def _failed(self) -> bool:
        if self._dispatcher.failure is not None or self._barren:
            return True
        return self._housekeeping is not None and self._housekeeping.failure is not None

    def _look_for_births(self) -> None:
        """End a node that has no worker and cannot get one: it would beat and serve nobody, and nobody would notice."""
        now = self._clock.monotonic()
        if self._killed_for_lease or self._pool.healthy or any(member.ready for member in self._pool.members):
            self._fertile_at = now
        elif now - self._fertile_at >= BARREN_FOR and not self._barren:
            self._barren = True
            _logger.error("no worker could start for %.0f s: the node ends", now - self._fertile_at)

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
        elif lease.shaky.is_set() or lease.fades or self._is_quiet(lease):  # A beat may hang and not fail.
            self._dispatcher.claiming.clear()
            if lease.fades and not self._told_to_stop:
                self._told_to_stop = True
                self._dispatcher.post(self._dispatcher.tell_to_stop)
        elif not self._killed_for_lease:
            self._dispatcher.claiming.set()
            self._told_to_stop = False

    def _begin_anew(self, lease: NodeLease) -> None:
        """Take up work again: under a new node id where this one was declared dead, unless it was asked to drain."""
        if not lease.lost.is_set():
            self._killed_for_lease = lease.must_stop
        elif self._forgotten is None:
            self._forgotten = threading.Event()
            self._dispatcher.post(self._dispatcher.drop_everything, self._forgotten)
        elif self._forgotten.is_set():  # Not before: what is claimed under the new id must not be forgotten along.
            with contextlib.suppress(StoreError):  # It went away again: this is tried anew in a moment.
                if self._was_to_drain():
                    lease.drain_asked.set()
                    return
                if self._housekeeping is not None:
                    self._housekeeping.stop()
                self._register()
                self._forgotten = None

    def _was_to_drain(self) -> bool:
        """Say whether somebody had asked this node to drain before it was declared dead: it could not learn of it."""
        rows = self._store.driver.nodes(everyone=True)
        told = [json.loads(row.info or "{}") for row in rows if row.id == self._node_id]
        return any(each.get(ASKED_TO_DRAIN) for each in told)

    def _is_quiet(self, lease: NodeLease) -> bool:
        """Say whether the node was asked to claim nothing for a while, and have everybody see it when that changes."""
        quiet = self._signals.quiet
        if quiet != (lease.state == "quiet"):
            lease.state = "quiet" if quiet else "alive"
            _logger.info("quiet: nothing is claimed until SIGUSR2" if quiet else "no longer quiet")
            if quiet:
                self._dispatcher.post(self._dispatcher.hand_back)
            if self._housekeeping is not None:
                self._housekeeping.beat_now()
        return quiet

    def _sleep(self, seconds: float) -> None:
        """Wait for the template, a signal, or the next tick."""
        waiting: list[int | Channel] = [self._signals.reader, self._dispatcher.attention]
        if self._pool.nursery is not None:
            waiting.append(self._pool.nursery.channel)
        readable(waiting, seconds)
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

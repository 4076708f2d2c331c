"""Transactional handlers: their effect and the acknowledgement of their job are one transaction of the worker's own.

The worker opens its connection at its first such job, after the fork, and acknowledges the job itself; the dispatcher
is only told. Whatever the node writes about the job later carries the same lease and finds it gone: so a worker may be
killed at any moment, and its outcome may get lost on its way, without an effect that is there twice or not at all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from taskqueue.clock import Clock
from taskqueue.doorbell import Ringer
from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.receipts import Fate, HandlerTransaction, Setback
from taskqueue.drivers.values import ClaimedJob, Completion
from taskqueue.errors import ConfigurationError, DatabaseUnreachable, StoreError, UsageError
from taskqueue.job import Job
from taskqueue.node.access import Access
from taskqueue.node.desk import WorkerDesk, WorkerReception
from taskqueue.node.executor import Executor
from taskqueue.node.handler_time import WAIT, Hold, RunTime, Turns, longest_hold
from taskqueue.node.outcome import LOST, WRITTEN, Outcome
from taskqueue.registry import REGISTRY
from taskqueue.states import Verb
from taskqueue.translation import seal_job

MOST_SETBACKS: Final = 3
"""How often a handler is run again, within one attempt, after its transaction was lost through no fault of its own."""
TIME: Final = 60.0
TIME_ALONE: Final = 5.0
"""Seconds for a transactional run; the latter where there is one writer at a time, and everybody waits for it."""

Deadline = Callable[[ClaimedJob, float | None], None]
"""Is told how many seconds a run has from now before its worker is to be killed; None is no limit."""

_AFTER_RACE, _AFTER_CUT, _ASK_AGAIN = 0.05, 1.0, 0.2
_LATER: Mapping[Setback, str] = MappingProxyType(
    {
        Setback.WAIT: f"others kept the database locked for {WAIT:g} s, so their transactions did not begin",
        Setback.STORAGE: "the database's disk is full, or can only be read",
    }
)
"""The setbacks after which a job goes back unspent: to run it again at once would not help."""
_logger = logging.getLogger("taskqueue.worker")


def access_for_jobs(fields: tuple[str, bytes] | None) -> Access | None:
    """Return the way to the database where a job class needs it; elsewhere workers are not to know it.

    What leads there is imported already, so that forks share its memory. Connects to nothing.
    """
    if fields is None or not any(REGISTRY.get(name).transactional for name in REGISTRY):
        return None
    access = Access(*fields)
    open_driver(access.url).close()
    return access


class _Again(Exception):
    """The transaction was lost through no fault of the handler."""

    def __init__(self, setback: Setback, error: BaseException) -> None:
        self.setback = setback
        self.error = error


class Transacting:
    """Runs the transactional jobs of one worker; each run has a connection of its own, so it serves several threads."""

    def __init__(
        self, executor: Executor, access: Access, clock: Clock, deadline: Deadline, turns: int | None = None
    ) -> None:
        self._executor = executor
        self._access = access
        self._clock = clock
        self._deadline = deadline
        self._driver: Driver | None = None
        self._opening = threading.Lock()
        self._turns = Turns(clock, turns)
        self._longest = longest_hold(access.lease, access.heartbeat)
        self._told_to_be_cut: set[str] = set()
        self._shut_out = ""
        """Why jobs go back at present; told once and not for each job."""
        self._ringer = Ringer(access.identity, clock)

    def run(self, job: Job, claimed: ClaimedJob) -> Outcome:
        """Run a job and return what came of it. Never raises, whatever the handler does."""
        try:
            return self._run(job, claimed)
        except BaseException as error:
            return self._executor.fail(job, claimed, error)

    def _run(self, job: Job, claimed: ClaimedJob) -> Outcome:
        """Run a job until its transaction is committed or rolled back; raises what its handler does."""
        try:
            driver = self._reach(claimed)
        except StoreError as error:
            return self._later(str(error))
        time = RunTime(self._clock, self._time(job, claimed, driver))
        began = self._clock.monotonic()
        setbacks = 0
        while True:
            left = time.left()
            self._deadline(claimed, left)
            try:
                transaction = driver.transaction(left, WAIT)
            except StoreError as error:
                return self._later(str(error))
            hold = Hold(self._turns, self._clock, time, self._longest, partial(self._deadline, claimed))
            if not driver.capabilities.concurrent_writers:
                transaction.around_begin = hold.begin
            try:
                return self._once(driver, transaction, job, claimed, _alarm(left), began)
            except _Again as again:
                if again.setback in _LATER:
                    return self._later(_LATER[again.setback])
                setbacks += 1
                if setbacks > MOST_SETBACKS or time.left() <= 0:
                    raise again.error from None
                _logger.info(
                    "job %s (%s) runs again: its transaction was lost (%s)",
                    UUID(bytes=claimed.id), claimed.job_class, type(again.error).__name__,
                )  # fmt: skip
                hold.end()
                self._pause(again.setback, min(setbacks, time.left()))
            finally:
                hold.end()
            made = self._executor.begin(claimed)  # With the payload as it was pushed.
            if isinstance(made, Outcome):
                return made
            job = made

    def _once(
        self,
        driver: Driver,
        transaction: HandlerTransaction,
        job: Job,
        claimed: ClaimedJob,
        alarm_ms: int | None,
        began: float,
    ) -> Outcome:
        with transaction:
            try:
                session = transaction.session(type(job).session_factory)
                desk = TransactionDesk(_reception_of(self._executor), claimed, driver, session)
                job.__dict__.update(_desk=desk, handle=partial(job.handle, session))
                result = self._executor.perform(job, claimed, alarm_ms)
                outcome = self._executor.complete(job, claimed, result)
                if outcome.verb is not Verb.COMPLETE:
                    return outcome
                receipt = transaction.acknowledge(self._completion(claimed, outcome, began))
                if receipt is None:
                    return LOST
                certain = transaction.commit()
                self._end_of_trouble()
            except Exception as error:
                setback = transaction.setback(error)
                if setback is not None:
                    raise _Again(setback, error) from error
                raise
        if not certain:
            self._deadline(claimed, None)  # From here on only the end of the node's lease ends the wait for an answer.
            fate = self._ask_for_fate(driver, claimed)
            if fate is not Fate.COMPLETED:
                return self._not_committed(fate)
        if receipt.released or desk.pushed:
            self._tell(driver)
        return WRITTEN

    def _completion(self, claimed: ClaimedJob, outcome: Outcome, began: float) -> Completion:
        now = self._clock.now_us()
        run_us = round((self._clock.monotonic() - began) * 1e6)
        wait_us = max(0, now - run_us - claimed.ready_at)
        return Completion(claimed.id, claimed.lease, claimed.queue, now, run_us, wait_us, outcome.result)

    def _not_committed(self, fate: Fate) -> Outcome:
        if fate is Fate.LOST:
            return LOST
        raise _Again(Setback.LINK, DatabaseUnreachable("the connection was lost during COMMIT, which did not happen"))

    def _ask_for_fate(self, driver: Driver, claimed: ClaimedJob) -> Fate:
        """Read back what became of a COMMIT that nobody answered, until somebody does."""
        while True:
            try:
                return driver.fate(claimed.id, claimed.lease)
            except StoreError:
                self._clock.wait(threading.Event(), _ASK_AGAIN)

    def _time(self, job: Job, claimed: ClaimedJob, driver: Driver) -> float:
        wanted = type(job).transaction_timeout
        if wanted is None:
            wanted = TIME if driver.capabilities.concurrent_writers else TIME_ALONE
        elif wanted > self._longest and not driver.capabilities.concurrent_writers:
            self._tell_of_cut(claimed.job_class, wanted)
        return wanted if claimed.timeout_ms is None else min(wanted, claimed.timeout_ms / 1000)

    def _tell_of_cut(self, job_class: str, wanted: float) -> None:
        if job_class not in self._told_to_be_cut:
            self._told_to_be_cut.add(job_class)
            _logger.warning(
                "%s has transaction_timeout=%g and gets %.1f s from its first statement on: this database has one"
                " writer at a time, and with lease=%g and heartbeat=%g a longer one would keep the node from beating:"
                " make the lease longer or the handler shorter",
                job_class, wanted, self._longest, self._access.lease, self._access.heartbeat,
            )  # fmt: skip

    def _later(self, why: str) -> Outcome:
        """Return the outcome of a job that could not run, through no fault of its own."""
        if why != self._shut_out:
            self._shut_out = why
            _logger.warning("transactional jobs go back unspent until this is over: %s", why)
        return Outcome(Verb.RELEASE, retry_after=_AFTER_CUT)

    def _end_of_trouble(self) -> None:
        if self._shut_out:
            self._shut_out = ""
            _logger.info("transactional jobs run again")

    def _pause(self, setback: Setback, times: float) -> None:
        longest = (_AFTER_RACE if setback is Setback.RACE else _AFTER_CUT) * times
        self._clock.wait(threading.Event(), longest * (0.5 + self._clock.jitter() / 2))

    def _tell(self, driver: Driver) -> None:
        if self._ringer.ring():
            driver.announce()

    # --- the way to the database -----------------------------------------------------------------------------

    def _reach(self, claimed: ClaimedJob) -> Driver:
        """Return the driver; at the first job it is opened, and proved to lead to the node's database."""
        with self._opening:
            if self._driver is None:
                driver = open_driver(self._access.url, durability="full", clock=self._clock)
                try:
                    self._prove_same(driver, claimed)
                except BaseException:
                    driver.close()
                    raise
                self._driver = driver
            return self._driver

    def _prove_same(self, driver: Driver, claimed: ClaimedJob) -> None:
        identity, _ = driver.installation()
        if identity != self._access.identity:
            what = f"installation {UUID(bytes=identity)}, the node's is {UUID(bytes=self._access.identity)}"
        elif driver.get(claimed.id) is None:  # Random, written by the node's own connection a moment ago.
            what = "a copy of it: this job, which the node has claimed, is not there"
        else:
            return
        raise ConfigurationError(
            f"transactional jobs cannot run here: what the worker reaches at {driver.describe()} is another database"
            f" than the node's ({what}): give a DATABASE_URL that leads every process to the same one, with an absolute"
            " path or a fixed host"
        )


class TransactionDesk(WorkerDesk):
    """Answers for a run in a transaction: what it pushes is a part of that."""

    def __init__(self, office: WorkerReception, claimed: ClaimedJob, driver: Driver, session: Any) -> None:
        super().__init__(office, claimed)
        self._driver = driver
        self._session = session
        self.pushed = False
        """Whether nodes are to be told of new jobs after the commit."""

    def push(self, job: Job, options: dict[str, Any]) -> Any:
        """Store another job in the handler's transaction: it is there when this one has completed, or not at all."""
        if not isinstance(job, Job):
            raise UsageError(
                f"push takes a job, got {type(job).__name__}; a function with @task makes one by .job(...)"
            )
        office = self._office
        sealed = seal_job(
            job.configure(**options) if options else job, office.codec, office.salt, office.clock.now_us()
        )
        (stands,) = self._driver.push_within(
            self._session, [sealed.row], [sealed.tags], [sealed.parents], [sealed.rule]
        )
        self.pushed = True
        return UUID(bytes=stands.id)

    def checkpoint(self, state: Any) -> Any:
        """Refuse: there is nothing between all and nothing here."""
        del state
        raise UsageError(
            "a transactional handler has no checkpoints, since what it does happens as a whole or not at all: leave"
            " self.checkpoint() out, or split the job"
        )


def _alarm(seconds: float) -> int | None:
    """Return the milliseconds for an alarm, which the main thread alone can have."""
    return max(1, round(seconds * 1000)) if threading.current_thread() is threading.main_thread() else None


def _reception_of(executor: Executor) -> WorkerReception:
    reception = executor.reception
    if not isinstance(reception, WorkerReception):
        raise ConfigurationError("a transactional job runs in a node's worker only")
    return reception

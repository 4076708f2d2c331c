"""What nodes do in turns to keep the database small and quick: remove what is old, and look after the tables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.retention import batch_size, rest
from taskqueue.settings import WorkerSettings
from taskqueue.states import State

PURGE_EVERY: Final = 60.0
TEND_EVERY: Final = 1.0
NODES_KEPT: Final = 7 * 86_400.0
"""Seconds for which a node that has ended is still listed."""

_TROUBLED = (State.FAILED, State.CANCELLED)
_logger = logging.getLogger("taskqueue.node")


class Upkeep:
    """The bodies of two loops. Of all nodes one at a time does the purging, and one the tending."""

    def __init__(self, driver: Driver, node_id: int, worker: WorkerSettings, clock: Clock) -> None:
        self._driver = driver
        self._node_id = node_id
        self._worker = worker
        self._clock = clock
        self._batch = batch_size(driver)
        self._stopping = threading.Event()
        self._is_short = False

    def stop(self) -> None:
        """Have a purge end after the batch that runs now."""
        self._stopping.set()

    def purge(self) -> None:
        """Remove what has been kept for long enough, if it is this node's turn."""
        if not self._driver.take_turn("purge", self._node_id, PURGE_EVERY):
            return
        self._restore_lanes()
        removed = self._purge_old() + self._purge_many()
        if removed:
            _logger.info("purged %d finished job(s)", removed)
        self._sweep()

    def tend(self) -> None:
        """Do for the database what it does not do by itself."""
        for sentence in self._driver.tend(self._node_id):
            _logger.debug("%s", sentence)
        self._tell_of_room()

    def _tell_of_room(self) -> None:
        """Say once that the disk is full, and once that it is not any more."""
        shortage = self._driver.shortage()
        if shortage is not None and not self._is_short:
            _logger.error("%s", shortage)
        elif shortage is None and self._is_short:
            _logger.warning("there is room on the disk again: jobs are claimed")
        self._is_short = shortage is not None

    def _restore_lanes(self) -> None:
        restored = self._driver.restore_lanes()
        if restored:
            _logger.warning(
                "%d lane(s) of pending jobs had been lost, as by a restore; they are served again", restored
            )

    def _purge_old(self) -> int:
        worker = self._worker
        ages = ((worker.retention_completed, (State.COMPLETED,)), (worker.retention_failed, _TROUBLED))
        return sum(
            self._in_batches(partial(self._driver.purge, self._ago(age), states, None, self._batch))
            for age, states in ages
            if age is not None
        )

    def _purge_many(self) -> int:
        keep = self._worker.retention_keep
        if keep is None:
            return 0
        return sum(
            self._in_batches(partial(self._driver.purge_beyond, keep, row.queue, self._batch))
            for row in self._driver.queues()
            if sum(jobs for state, jobs in row.counts.items() if state.final) > keep
        )

    def _sweep(self) -> None:
        kept = self._worker.retention_rollups
        minutes_before = 0 if kept is None else self._ago(kept)
        self._in_batches(partial(self._driver.sweep, minutes_before, self._ago(NODES_KEPT), self._batch))

    def _in_batches(self, remove: Callable[[], int]) -> int:
        """Call ``remove`` until nothing is left or the node stops."""
        total, began = 0, self._clock.monotonic()
        while not self._stopping.is_set():
            removed = remove()
            if not removed:
                break
            total += removed
            began = rest(self._clock, self._stopping, began)
        return total

    def _ago(self, seconds: float) -> int:
        return self._clock.now_us() - round(seconds * 1e6)

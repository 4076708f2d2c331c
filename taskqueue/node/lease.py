"""A node's own lease: it lasts while the node can beat, and the node stops itself before others may take its jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.errors import SettingsConflict

DRAINING = "draining"
SELF_STOP = 2 / 3
"""The share of the lease after which a node that could not beat kills its workers."""
TEMPLATE_LATER = 0.25
"""Seconds after which the template does it, in case that the supervisor itself stands still."""
LONGEST_TICK = 0.5
"""Seconds between two looks of the supervisor at the lease; a twentieth of a short lease."""
KILL_WITHIN = 1.0
"""Seconds that the end of the workers may take from then on, also on a machine that is short of time."""
BEATS_MISSED = 2
"""Heartbeats that may be missing before another connection is tried."""


def watchdog_tick(lease: float) -> float:
    """Return the seconds between two looks at the lease."""
    return min(LONGEST_TICK, lease / 20)


def check_lease(lease: float, heartbeat: float) -> None:
    """Refuse times with which the workers might still run when other nodes take their jobs over."""
    latest = lease * SELF_STOP + TEMPLATE_LATER + watchdog_tick(lease) + KILL_WITHIN
    if latest >= lease:
        raise SettingsConflict(
            f"a node that cannot beat has killed its workers after at most {latest:.2f} s (two thirds of the lease,"
            f" {TEMPLATE_LATER:g} s for its template, {watchdog_tick(lease):g} s until it looks, {KILL_WITHIN:g} s to"
            f" kill), and with lease={lease:g} others take its jobs after {lease:g} s: make the lease longer",
            "lease",
        )
    # A beat that is lost is made up for by the spare one, at most a heartbeat after two are missing.
    if (BEATS_MISSED + 1) * heartbeat >= lease * SELF_STOP:
        raise SettingsConflict(
            f"one lost heartbeat would stop the workers: the next one comes {(BEATS_MISSED + 1) * heartbeat:g} s after"
            f" the last good one, and two thirds of lease={lease:g} are {lease * SELF_STOP:.2f} s: make the lease"
            f" longer than {(BEATS_MISSED + 1) / SELF_STOP:g} heartbeats",
            "lease",
            "heartbeat",
        )


class NodeLease:
    """Beats for a node, and knows how long the last good beat holds.

    The lease counts from before the beat was sent, on the monotonic clock: whatever the answer took is on our account.
    """

    def __init__(
        self,
        driver: Driver,
        node_id: int,
        length: float,
        clock: Clock,
        held_until: Callable[[float], None],
        describe: Callable[[], str | None] = lambda: None,
        spare: Driver | None = None,
    ) -> None:
        self._driver = driver
        self._spare = spare if spare is not None else driver
        self._node_id = node_id
        self._length = length
        self._clock = clock
        self._held_until = held_until
        self._describe = describe
        self._described: str | None = None
        self._extending = threading.Lock()
        self._good_since = float("-inf")
        self._extend(clock.monotonic())
        self.lost = threading.Event()
        """Set when another node has declared this one dead."""
        self.shaky = threading.Event()
        """Set while the last beat failed: no new jobs are claimed then."""
        self.drain_asked = threading.Event()
        """Set when somebody has asked this node, through the database, to finish what it runs and stop."""
        self.state = "alive"

    def beat(self) -> None:
        """Beat once; raises `StoreError` where the store does not answer."""
        self._beat(self._driver)

    def _beat(self, driver: Driver) -> None:
        sent_at = self._clock.monotonic()
        try:
            info = self._describe()
            news = info if info != self._described else None
            standing = driver.beat(self._node_id, state=self.state, info=news)
        except BaseException:
            self.shaky.set()
            raise
        if standing is None:
            self.lost.set()
            return
        if standing == DRAINING:
            self.state = standing
            self.drain_asked.set()
        self._described = info
        self._extend(sent_at)
        self.shaky.clear()

    def beat_if_late(self, seconds: float) -> None:
        """Beat where the last good beat is older than that, on a new connection: those that are open may all hang."""
        if self._clock.monotonic() - self._good_since > seconds:
            try:
                self._beat(self._spare)
            finally:
                if self._spare is not self._driver:
                    self._spare.close()  # The next one is to be new again.

    def _extend(self, good_since: float) -> None:
        with self._extending:  # Two threads beat; the later beat counts, whichever is answered first.
            if good_since > self._good_since:
                self._good_since = good_since
                self._held_until(good_since + self._length * SELF_STOP + TEMPLATE_LATER)

    @property
    def fades(self) -> bool:
        """Say whether half of the lease is over without a beat: time for the jobs to come to an end by themselves."""
        return self._clock.monotonic() - self._good_since >= self._length / 2

    @property
    def must_stop(self) -> bool:
        """Say whether the workers have to be killed now. Touches no database: this is what the watchdog asks."""
        return self.lost.is_set() or self._clock.monotonic() - self._good_since >= self._length * SELF_STOP

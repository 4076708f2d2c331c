"""A node stops itself before others may take its jobs: a clock to move, and a real database."""

from __future__ import annotations

from typing import Any

import pytest

from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.errors import DatabaseUnreachable, SettingsConflict
from taskqueue.node.identity import describe_node
from taskqueue.node.lease import SELF_STOP, NodeLease, check_lease
from tests.databases import Database
from tests.node.making import MovableClock

LENGTH = 30.0


class Leased:
    def __init__(self, database: Database) -> None:
        self.clock = MovableClock()
        self.held_until: list[float] = []
        self.driver: Driver = open_driver(database.url, clock=self.clock)
        self.node_id = self.driver.register_node(describe_node("one", LENGTH, {}))
        self.lease = NodeLease(self.driver, self.node_id, LENGTH, self.clock, self.held_until.append)

    @property
    def row(self) -> Any:
        return next(node for node in self.driver.nodes(everyone=True) if node.id == self.node_id)


@pytest.fixture
def leased(database: Database) -> Any:
    made = Leased(database)
    yield made
    made.driver.close()


def test_each_beat_raises_the_sequence(leased: Leased) -> None:
    before = leased.row.sequence
    leased.lease.beat()
    leased.lease.beat()
    assert leased.row.sequence == before + 2


def test_a_node_that_beats_goes_on_for_ever(leased: Leased) -> None:
    for _ in range(100):
        leased.clock.move(5)
        leased.lease.beat()
        assert not leased.lease.must_stop


def test_a_node_that_cannot_beat_stops_at_two_thirds_of_its_lease(leased: Leased) -> None:
    leased.lease.beat()
    leased.clock.move(LENGTH * SELF_STOP - 0.01)
    early = leased.lease.must_stop
    leased.clock.move(0.01)
    assert (early, leased.lease.must_stop) == (False, True)
    assert LENGTH * SELF_STOP + 0.5 + 1.0 < LENGTH


def test_each_good_beat_tells_until_when_workers_may_live_a_little_later_than_the_node_kills_them(
    leased: Leased,
) -> None:
    leased.clock.move(5)
    sent_at = leased.clock.monotonic()
    leased.lease.beat()
    assert sent_at + LENGTH * SELF_STOP < leased.held_until[-1] < sent_at + LENGTH
    leased.driver.declare_dead(leased.node_id, leased.row.sequence)
    told = len(leased.held_until)
    leased.lease.beat()
    assert len(leased.held_until) == told


class SlowStore:
    """A store whose answer to a beat takes its time, or does not come."""

    def __init__(self, clock: MovableClock, seconds: float, error: Exception | None = None) -> None:
        self._clock, self._seconds, self._error = clock, seconds, error
        self.beats = 0

    def beat(self, _node_id: int, *, state: str, info: str | None = None) -> str:
        self.beats += 1
        self._clock.move(self._seconds)
        if self._error is not None:
            raise self._error
        return state


def test_the_lease_counts_from_before_the_beat_was_sent() -> None:
    clock = MovableClock()
    lease = NodeLease(SlowStore(clock, 12.0), 1, LENGTH, clock, lambda _: None)  # type: ignore[arg-type]
    lease.beat()
    clock.move(LENGTH * SELF_STOP - 12.0)
    assert lease.must_stop


def test_a_beat_that_fails_stops_claims_and_the_next_good_one_allows_them() -> None:
    clock = MovableClock()
    lost = SlowStore(clock, 0.0, DatabaseUnreachable("gone"))
    lease = NodeLease(lost, 1, LENGTH, clock, lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnreachable):
        lease.beat()
    assert lease.shaky.is_set()
    lost._error = None
    lease.beat()
    assert not lease.shaky.is_set()


def test_a_spare_beat_is_sent_only_where_the_last_good_one_is_late() -> None:
    """Its own loop sends it, on another connection: the one of the usual beats may hang for 20 s."""
    clock = MovableClock()
    store = SlowStore(clock, 0.0)
    lease = NodeLease(store, 1, LENGTH, clock, lambda _: None)  # type: ignore[arg-type]
    clock.move(10.0)
    lease.beat_if_late(10.0)
    assert store.beats == 0
    clock.move(0.1)
    lease.beat_if_late(10.0)
    assert store.beats == 1
    clock.move(LENGTH * SELF_STOP - 0.1)
    assert not lease.must_stop


def test_an_earlier_beat_that_is_answered_later_takes_nothing_back() -> None:
    clock = MovableClock()
    held_until: list[float] = []
    lease = NodeLease(SlowStore(clock, 0.0), 1, LENGTH, clock, held_until.append)  # type: ignore[arg-type]
    clock.move(10.0)
    lease.beat()
    lease._extend(clock.monotonic() - 8.0)
    assert held_until == sorted(held_until)
    clock.move(LENGTH * SELF_STOP - 0.1)
    assert not lease.must_stop


@pytest.mark.parametrize(("length", "heartbeat"), [(30.0, 5.0), (6.0, 1.0), (5.5, 0.5), (86_400.0, 3600.0)])
def test_a_lease_that_holds_is_taken(length: float, heartbeat: float) -> None:
    check_lease(length, heartbeat)


def test_a_lease_within_which_the_workers_cannot_be_killed_is_refused_with_the_numbers() -> None:
    with pytest.raises(SettingsConflict, match=r"after at most 4\.12 s .* lease=4 .* make the lease longer") as caught:
        check_lease(4.0, 0.5)
    assert (caught.value.names, caught.value.exit_code) == (("lease",), 78)


def test_a_lease_that_one_lost_beat_would_end_is_refused_with_the_numbers() -> None:
    with pytest.raises(SettingsConflict, match=r"comes 21 s after .* are 20\.00 s: .* longer than 4\.5 heartbeats"):
        check_lease(30.0, 7.0)


def test_a_node_that_was_declared_dead_learns_it_at_its_next_beat_and_stops_at_once(leased: Leased) -> None:
    assert leased.driver.declare_dead(leased.node_id, leased.row.sequence)
    assert not leased.lease.must_stop
    leased.lease.beat()
    assert leased.lease.lost.is_set()
    assert leased.lease.must_stop


def test_a_beat_of_a_dead_node_changes_nothing(leased: Leased) -> None:
    leased.driver.declare_dead(leased.node_id, leased.row.sequence)
    before = leased.row
    leased.lease.beat()
    assert leased.row == before


def test_the_state_that_a_node_wants_to_be_seen_in_goes_with_its_beat(leased: Leased) -> None:
    leased.lease.state = "draining"
    leased.lease.beat()
    assert leased.row.state == "draining"


@pytest.mark.parametrize("jump", [3600, -3600, 10**7])
def test_wall_clocks_decide_nothing(leased: Leased, jump: int) -> None:
    leased.lease.beat()
    leased.clock.us += jump * 1_000_000
    assert not leased.lease.must_stop

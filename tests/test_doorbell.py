"""The hint between processes of one machine: heard at once, never in the way."""

from __future__ import annotations

import os
import select
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue.doorbell import SILENCE, Doorbell, Ringer
from tests.node.making import MovableClock

HERE, ELSEWHERE = b"\1" * 16, b"\2" * 16


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder for bells with a short name: the address of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="tq") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def bell() -> Iterator[Doorbell]:
    made = Doorbell(HERE)
    assert made.bound
    yield made
    made.close()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


def bells(runtime: Path) -> list[Path]:
    return list(runtime.rglob("*.bell"))


def test_a_ring_makes_the_bell_readable_until_it_was_heard(bell: Doorbell, clock: MovableClock) -> None:
    assert not bell.heard()
    assert Ringer(HERE, clock).ring()
    assert select.select([bell], [], [], 5)[0] == [bell]
    assert bell.heard()
    assert not bell.heard()


def test_every_node_of_the_database_hears_and_no_other(bell: Doorbell, clock: MovableClock) -> None:
    second, stranger = Doorbell(HERE), Doorbell(ELSEWHERE)
    Ringer(HERE, clock).ring()
    assert [each.heard() for each in (bell, second, stranger)] == [True, True, False]
    second.close()
    stranger.close()


def test_one_process_rings_once_in_a_while_however_much_it_pushes(bell: Doorbell, clock: MovableClock) -> None:
    ringer = Ringer(HERE, clock)
    assert [ringer.ring() for _ in range(3)] == [True, False, False]
    clock.move(SILENCE)
    assert ringer.ring()


def test_a_bell_that_a_dead_node_left_is_taken_away(runtime: Path, clock: MovableClock) -> None:
    bell = Doorbell(HERE)
    (path,) = bells(runtime)
    dead = path.with_name("dead.bell")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(dead))
    Ringer(HERE, clock).ring()
    assert bells(runtime) == [path]
    assert bell.heard()
    bell.close()
    assert bells(runtime) == []


def test_without_any_bell_ringing_does_nothing(clock: MovableClock, runtime: Path) -> None:
    assert Ringer(HERE, clock).ring()
    assert list(runtime.iterdir()) == []


def test_a_folder_that_others_may_write_to_is_not_trusted(runtime: Path, clock: MovableClock) -> None:
    (runtime / f"taskqueue-{os.getuid()}").mkdir()
    (runtime / f"taskqueue-{os.getuid()}").chmod(0o777)
    bell = Doorbell(HERE)
    assert not bell.bound
    assert Ringer(HERE, clock).ring()
    bell.close()


def test_an_address_that_is_too_long_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    bell = Doorbell(HERE)
    assert not bell.bound
    assert not bell.heard()
    bell.close()


def test_a_full_bell_holds_nobody_up(bell: Doorbell, clock: MovableClock) -> None:
    ringer = Ringer(HERE, clock)
    for _ in range(2000):
        assert ringer.ring()
        clock.move(SILENCE)
    assert bell.heard()

"""A worker's end of its connection: who asks gets its own reply, whichever thread reads it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from taskqueue.node.post import LOST, REPLY, STOP, Post
from taskqueue.node.readiness import readable
from taskqueue.node.wire import Channel
from tests.node.running import until


class Line:
    """A post, and the other end of its connection."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.end, self.node = Channel(ours), Channel(theirs)
        self.post = Post(self.end)

    def heard(self, number: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            readable([self.node], 20)
            found += self.node.receive()
        return found

    def answer_backwards(self, number: int) -> None:
        """Wait for so many requests, and answer them in the opposite order, with their own fields."""
        for kind, mark, *fields in reversed(self.heard(number)):
            self.node.send((REPLY, mark, (kind, *fields)))


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.node.close()
    made.end.close()


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_many_threads_each_get_their_own_reply(line: Line) -> None:
    got: dict[int, Any] = {}

    def ask(number: int) -> None:
        got[number] = line.post.ask("push", number)

    threads = [in_thread(lambda number=number: ask(number)) for number in range(20)]
    line.answer_backwards(20)
    for thread in threads:
        thread.join(20)
    assert got == {number: ("push", number) for number in range(20)}


def test_a_thread_gets_its_reply_from_the_one_that_always_reads(line: Line) -> None:
    got: list[Any] = []
    line.post.read_always()
    thread = in_thread(lambda: got.append(line.post.ask("push", 1)))
    line.answer_backwards(1)
    while not got:
        if readable([line.post], 0.01):
            line.post.receive()
    thread.join(20)
    assert got == [("push", 1)]


def test_jobs_that_arrive_while_a_reply_is_awaited_are_kept(line: Line) -> None:
    got: list[Any] = []
    thread = in_thread(lambda: got.append(line.post.ask("push", 1)))
    (request,) = line.heard(1)
    line.node.send([(1, "job")])
    line.node.send((REPLY, request[1], "here"))
    thread.join(20)
    assert (got, list(line.post.jobs)) == (["here"], [(1, "job")])


def received(line: Line) -> Post:
    line.post.receive()
    return line.post


def looked(line: Line) -> Post:
    line.post.look()
    return line.post


def test_a_reply_that_nobody_waits_for_any_more_is_dropped(line: Line) -> None:
    line.node.send((REPLY, 7, "late"))
    line.node.send((STOP, b"a", 1))
    line.node.send((LOST, b"b", 2))
    until(lambda: received(line).lost, "all has arrived")
    assert (list(line.post.stops), list(line.post.lost)) == ([(b"a", 1)], [(b"b", 2)])
    assert not line.post.expects_replies


def test_who_waits_for_a_reply_learns_that_the_node_is_gone(line: Line) -> None:
    ended: list[str] = []

    def ask() -> None:
        try:
            line.post.ask("push", 1)
        except EOFError:
            ended.append("gone")

    threads = [in_thread(ask) for _ in range(5)]
    line.heard(5)
    line.node.close()
    for thread in threads:
        thread.join(20)
    assert ended == ["gone"] * 5


def test_a_look_does_not_wait(line: Line) -> None:
    line.post.look()
    line.node.send((STOP, b"a", 1))
    until(lambda: looked(line).stops, "the wish was seen")


def test_a_message_that_a_signal_sends_in_the_midst_of_another_comes_whole_after_it(line: Line) -> None:
    large = b"x" * 8_000_000
    before = signal.signal(signal.SIGUSR2, lambda _signal, _frame: line.post.send("from the signal"))
    got: list[Any] = []

    def read() -> None:
        readable([line.node], 20)  # It has begun, and the connection takes no more before this end reads.
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR2)
        got.extend(line.heard(2))

    try:
        thread = in_thread(read)
        line.post.send(large)
        thread.join(20)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert got[0] == large
    assert set(got[1:]) == {"from the signal"}

"""The right to start a job goes to exactly one of two."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

import pytest

from taskqueue.node.tickets import MOST, TicketPipe, take


@pytest.fixture
def pipe() -> Iterator[TicketPipe]:
    made = TicketPipe()
    yield made
    for descriptor in (made.reader, made._writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def collect(reader: int) -> list[int]:
    """Take tickets as a worker does, until the pipe's end."""
    taken: list[int] = []
    while True:
        try:
            token = take(reader)
        except EOFError:
            return taken
        if token is None:
            select.select([reader], [], [])
        else:
            taken.append(token)


def in_child(work: Callable[[], list[int]]) -> tuple[int, int]:
    """Run ``work`` in a fork, which writes the tokens it returns; return its pid and where to read them."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    code = 1
    try:
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            out.write(" ".join(map(str, work())))
        code = 0
    finally:
        os._exit(code)


def said(child: tuple[int, int]) -> list[int]:
    pid, reader = child
    with os.fdopen(reader) as told:
        tokens = [int(word) for word in told.read().split()]
    assert os.waitpid(pid, 0)[1] == 0
    return tokens


def test_tickets_are_taken_in_the_order_in_which_they_were_issued(pipe: TicketPipe) -> None:
    pipe.issue([3, 4])
    pipe.issue([9])
    assert [take(pipe.reader) for _ in range(4)] == [3, 4, 9, None]


def test_what_is_taken_back_cannot_be_taken(pipe: TicketPipe) -> None:
    pipe.issue([1, 2, 3])
    assert take(pipe.reader) == 1
    assert pipe.take_back() == [2, 3]
    assert take(pipe.reader) is None
    assert pipe.take_back() == []


def test_the_most_tickets_that_may_wait_are_written_and_taken_back_whole(pipe: TicketPipe) -> None:
    tokens = list(range(1, MOST + 1))
    pipe.issue(tokens)
    assert pipe.take_back() == tokens


def test_a_worker_sees_the_end_after_the_last_ticket(pipe: TicketPipe) -> None:
    reader = os.dup(pipe.reader)
    pipe.issue([5])
    pipe.close()
    assert take(reader) == 5
    with pytest.raises(EOFError):
        take(reader)
    os.close(reader)


def _worker(pipe: TicketPipe) -> Callable[[], list[int]]:
    def work() -> list[int]:
        os.close(pipe._writer)
        return collect(pipe.reader)

    return work


def test_two_takers_in_two_processes_are_given_each_ticket_once(pipe: TicketPipe) -> None:
    takers = [in_child(_worker(pipe)) for _ in range(2)]
    tokens = list(range(1, 20_001))
    _issue_patiently(pipe, tokens)
    os.close(pipe._writer)
    first, second = (said(child) for child in takers)
    assert sorted(first + second) == tokens
    assert first == sorted(first)
    assert second == sorted(second)


def test_a_ticket_is_either_taken_by_the_worker_or_taken_back_never_both(pipe: TicketPipe) -> None:
    taker = in_child(_worker(pipe))
    back: list[int] = []
    issued = 0
    while issued < 20_000:
        chunk = list(range(issued + 1, issued + 17))
        pipe.issue(chunk)
        issued = chunk[-1]
        if issued % 48 == 0:
            back += pipe.take_back()
        elif issued % 32 == 0:
            select.select([], [pipe._writer], [])
        while select.select([pipe.reader], [], [], 0)[0] and issued % 400 == 0:
            os.sched_yield()
    os.close(pipe._writer)
    taken = said(taker)
    assert sorted(taken + back) == list(range(1, issued + 1))
    assert taken
    assert back


def _issue_patiently(pipe: TicketPipe, tokens: list[int]) -> None:
    for at in range(0, len(tokens), 16):
        while True:
            try:
                pipe.issue(tokens[at : at + 16])
                break
            except BlockingIOError:
                select.select([], [pipe._writer], [])

"""What the drivers say to their databases does not grow with the batch: counted, so no machine can make it pass."""

from __future__ import annotations

import pytest

from benchmarks.databases.kind import VERBS, Kind
from benchmarks.statements import Talk, talks
from benchmarks.wire import Count, mysql_reader, postgresql_reader

FEW, MANY = 10, 100


@pytest.fixture(scope="module")
def counted(kind: Kind) -> list[Talk]:
    return list(talks(kind, (1, FEW, MANY)))


@pytest.mark.parametrize("number", range(len(VERBS)), ids=VERBS)
def test_a_verb_sends_few_statements_however_many_jobs_it_is_for(number: int, counted: list[Talk], kind: Kind) -> None:
    found = [talk for talk in counted if talk.what == VERBS[number]]
    assert found
    assert max(talk.statements for talk in found) <= kind.limits.statements[number]


def test_a_client_never_waits_more_often_than_it_sends_a_statement(counted: list[Talk], kind: Kind) -> None:
    assert all((talk.round_trips is not None) == kind.has_wire for talk in counted)
    assert all(talk.round_trips <= talk.statements for talk in counted if talk.round_trips is not None)


def test_a_batch_of_a_hundred_waits_no_more_often_than_one_of_ten(counted: list[Talk], kind: Kind) -> None:
    if not kind.has_wire:
        pytest.skip("nobody waits for a database in a file")
    waits = {(talk.what, talk.batch): talk.round_trips for talk in counted}
    for what in VERBS:
        if (what, MANY) in waits:
            assert waits[what, MANY] == waits[what, FEW]


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


@pytest.mark.parametrize("piece", [1, 3, 1_000])
def test_messages_of_one_protocol_are_counted_in_whatever_pieces_they_come(piece: int) -> None:
    ask = (8).to_bytes(4) + (80877103).to_bytes(4)
    start = (12).to_bytes(4) + (196608).to_bytes(4) + b"user"
    run = _message(b"P", b"\0SELECT 1\0") + _message(b"B", b"EQS") + _message(b"E", b"\0") + _message(b"S")
    said = ask + start + run + run[: -len(_message(b"S"))] + run + _message(b"Q", b"COMMIT\0")
    count = _count(postgresql_reader, said, piece)
    assert (count.statements, count.round_trips) == (4, 3)


@pytest.mark.parametrize("piece", [1, 3, 1_000])
def test_packets_of_the_other_are_counted_in_whatever_pieces_they_come(piece: int) -> None:
    def packet(number: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "little") + bytes([number]) + body

    said = packet(1, b"hello") + packet(0, b"\x03BEGIN") + packet(0, b"\x03\0\0\0\0") + packet(1, b"more")
    count = _count(mysql_reader, said, piece)
    assert (count.statements, count.round_trips) == (2, 2)


def _count(reader: object, said: bytes, piece: int) -> Count:
    count = Count()
    read = reader(count)  # type: ignore[operator]
    for start in range(0, len(said), piece):
        read(said[start : start + piece])
    return count

"""Messages between the processes of a node."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from taskqueue.node.wire import Channel, pack


class Pair:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.here, self.there = Channel(ours), Channel(theirs)
        self.raw = theirs

    def close(self) -> None:
        self.here.close()
        self.there.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.mark.parametrize(
    "message", [None, True, -(2**70), 1.5, "ä\ud800", b"\0\xff", [1, [2]], (1, ("a", None)), {"k": {"n": b""}}]
)
def test_a_message_arrives_as_it_was_sent(pair: Pair, message: Any) -> None:
    pair.here.send(message)
    (received,) = pair.there.receive()
    assert received == message
    assert type(received) is type(message)


def test_many_messages_arrive_in_their_order(pair: Pair) -> None:
    for number in range(500):
        pair.here.send(("job", number))
    received: list[Any] = []
    while len(received) < 500:
        received += pair.there.receive()
        pair.here.flush()
    assert [number for _, number in received] == list(range(500))


def test_a_message_that_arrives_byte_by_byte_is_whole_only_at_its_end(pair: Pair) -> None:
    frame = pack({"to": "someone"}) + pack("next")
    received = []
    for at in range(len(frame)):
        pair.raw.send(frame[at : at + 1])
        received += [(at, message) for message in pair.here.receive()]
    first = len(pack({"to": "someone"}))
    assert received == [(first - 1, {"to": "someone"}), (len(frame) - 1, "next")]


def test_nothing_sent_is_nothing_received(pair: Pair) -> None:
    assert pair.there.receive() == []


def test_what_was_sent_before_the_other_end_closed_is_still_received(pair: Pair) -> None:
    pair.here.send("last words")
    pair.here.close()
    assert pair.there.receive() == ["last words"]
    with pytest.raises(EOFError):
        pair.there.receive()


def test_half_a_message_before_the_end_is_no_message(pair: Pair) -> None:
    pair.raw.send(pack("a long message")[:-3])
    pair.raw.close()
    assert pair.here.receive() == []
    with pytest.raises(EOFError):
        pair.here.receive()


def test_a_sender_never_waits_for_a_reader_who_does_not_read(pair: Pair) -> None:
    large = b"x" * 4_000_000
    pair.here.send(large)
    assert pair.here.backed_up
    received: list[Any] = []
    while not received:
        received += pair.there.receive()
        pair.here.flush()
    assert received == [large]
    assert not pair.here.backed_up


def test_sending_to_a_closed_end_is_swallowed(pair: Pair) -> None:
    pair.there.close()
    pair.here.send("anybody there?")
    assert not pair.here.backed_up


def test_an_open_file_travels_with_its_message(pair: Pair) -> None:
    reader, writer = os.pipe()
    pair.here.send_with(("spawn", 3), [reader])
    pair.here.send_with(("spawn", 4), [writer])
    os.close(reader)
    os.close(writer)
    messages: list[Any] = []
    while len(messages) < 2:
        messages += pair.there.receive_with()
    first, second = pair.there.take_descriptors(2)
    os.write(second, b"hello")
    assert messages == [("spawn", 3), ("spawn", 4)]
    assert os.read(first, 10) == b"hello"
    os.close(first)
    os.close(second)


def test_the_end_is_noticed_while_waiting_for_open_files(pair: Pair) -> None:
    pair.here.close()
    with pytest.raises(EOFError):
        pair.there.receive_with()


def test_a_channel_carries_values_and_no_code(pair: Pair) -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        pair.here.send(object())

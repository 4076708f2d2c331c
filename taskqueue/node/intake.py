"""What workers say: that they are ready, what came of their jobs, what those ask for. The dispatcher listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskqueue.clock import Clock
from taskqueue.drivers.values import ClaimedJob, Completion
from taskqueue.node.crew import CrewMember
from taskqueue.node.feeding import Feeder
from taskqueue.node.ledger import Ledger
from taskqueue.node.outcome import WRITTEN, Outcome, ending
from taskqueue.node.post import READY
from taskqueue.node.readiness import readable
from taskqueue.node.requests import Requests
from taskqueue.node.tally import Tally
from taskqueue.payload import Codec

LAST_WORDS_WITHIN = 2.0
"""Seconds to wait for the end of the connection of a worker that may still live; one that is reaped has no more to say,
though a subprocess that it left behind may keep its connection open."""
_completion: Callable[[type[Completion], tuple[Any, ...]], Completion] = tuple.__new__
"""`Completion` without its constructor in Python, which costs 0.4 microseconds for each job."""


class Intake:
    """Takes in the messages of workers and enters what they report into the ledger."""

    def __init__(
        self,
        feeder: Feeder,
        ledger: Ledger,
        codec: Codec,
        clock: Clock,
        tally: Tally,
        requests: Requests,
        call_supervisor: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._feeder = feeder
        self._ledger = ledger
        self._codec = codec
        self._clock = clock
        self._tally = tally
        self._call_supervisor = call_supervisor

    def hear(self, member: CrewMember) -> None:
        """Take in what a worker has sent, and send on what its connection had not taken."""
        if member.channel.backed_up:
            member.channel.flush()
            self._feeder.watch(member)
        try:
            messages = member.channel.receive()
        except EOFError:
            self._feeder.mute(member)  # Its process is ending; the supervisor will say how, or see to it.
            member.silent_since = member.silent_since or self._clock.monotonic()
            return
        for message in messages:
            self._understand(member, message)

    def _understand(self, member: CrewMember, message: Any) -> None:
        if isinstance(message, list):
            self._take_in(member, message)
        elif message[0] == READY:
            member.ready = True
            self._call_supervisor()
        else:
            self._requests.take(member, message)

    def hear_last_words(self, member: CrewMember) -> None:
        """Take in everything that a worker has sent: all of it is here once its process was reaped.

        Where nobody has seen its end, it is waited for: the end that its death puts to its connection.
        """
        self._feeder.mute(member)
        reaped = member.obituary is not None and member.obituary.code is not None
        deadline = self._clock.monotonic() + LAST_WORDS_WITHIN
        while (left := deadline - self._clock.monotonic()) > 0:
            if not readable([member.channel], 0 if reaped else left) and reaped:
                return
            try:
                messages = member.channel.receive()
            except EOFError:
                return
            for message in messages:
                self._understand(member, message)

    def _take_in(self, member: CrewMember, outcomes: list[tuple[Any, ...]]) -> None:
        self._ledger.open()
        held, completions = member.held, self._ledger.completions
        ran: dict[str, list[int]] = {}
        for token, finished_at, run_us, result, wire in outcomes:
            claimed = held.pop(token, None)
            if claimed is None:
                continue
            id_, lease, queue, _, job_class, *_ = claimed
            ran.setdefault(job_class, []).append(run_us)
            wait_us = max(0, finished_at - run_us - claimed.ready_at)
            if wire is None:
                completions.append(_completion(Completion, (id_, lease, queue, finished_at, run_us, wait_us, result)))
            elif len(wire) == 1:
                self._take_in_settled(claimed, wire)
                continue
            else:
                self._take_in_ending(claimed, Outcome.from_wire(wire), finished_at, run_us, wait_us)
            self._tally.ended(claimed, wire)
        self._feeder.reported(member, ran)

    def _take_in_settled(self, claimed: ClaimedJob, wire: tuple[str]) -> None:
        """Take note of a job whose worker has written its outcome itself, or found that it was lost."""
        if wire == WRITTEN.to_wire():
            self._tally.ended(claimed, None)
        else:
            self._tally.fenced([claimed])

    def _take_in_ending(
        self, claimed: ClaimedJob, outcome: Outcome, finished_at: int, run_us: int, wait_us: int
    ) -> None:
        key_id = self._codec.active_key_id
        self._ledger.end(ending(claimed, outcome, finished_at, run_us=run_us, wait_us=wait_us, key_id=key_id))

"""The verbs for what a running job leaves behind: part of `Driver`, apart for its length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from taskqueue.drivers.reserving import ReservingDriver
from taskqueue.drivers.values import NewJob, Note, Stale, Standing
from taskqueue.states import OnConflict


class Noted(NamedTuple):
    """What became of notes: ``stale`` were dropped, ``locked`` is progress that may be written in a moment."""

    stale: list[Stale]
    locked: frozenset[tuple[bytes, int]]
    """The id and lease of jobs that are held, and whose rows somebody else had locked."""


class NotingDriver(ReservingDriver, ABC):
    """What can be written on behalf of a job while it is held, and only then."""

    @abstractmethod
    def note(self, progress: Sequence[Note] = (), checkpoints: Sequence[Note] = ()) -> Noted:
        """Write progress and checkpoints of running jobs, each in place of the last; say whose job has moved on.

        Of several notes of one kind for the same job the last one stays. A checkpoint waits for who has locked the
        row, progress does not: where the database can pass over what is locked, it comes back to be tried again.
        """

    @abstractmethod
    def push_held(
        self,
        holder: tuple[bytes, int],
        jobs: Sequence[NewJob],
        tags: Sequence[Sequence[str]] = (),
        parents: Sequence[Sequence[bytes]] = (),
        rules: Sequence[OnConflict] = (),
    ) -> list[Standing] | None:
        """Do as `push_each` provided that ``holder``, an id and a lease, is held; None where it is not.

        Both happen in one transaction, so nothing is stored for a run that another has taken over; the holder is locked
        last, because the push before it may wait for a foreign transaction. May be repeated:
        what an earlier try has stored stands, whatever became of its holder since.
        """

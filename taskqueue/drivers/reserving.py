"""What a driver does about the disk under its database, where that is ours to look after."""

from __future__ import annotations

from collections.abc import Sequence

from taskqueue.drivers.values import NewJob


class ReservingDriver:
    """The verbs for a disk that may run full. A server looks after its own: there they do nothing."""

    def keep_reserve(self, size: int) -> None:
        """Set ``size`` bytes aside on the database's disk, now and whenever there is room again; for nodes.

        From then on this driver gives them back when the disk is full, so that what runs can be acknowledged, and
        claims nothing until they are there again. With 0 nothing is set aside.
        """
        del size

    def shortage(self) -> str | None:
        """Return why nothing is claimed now, as a sentence for people, or None where there is room."""
        return None

    def admit(self, jobs: Sequence[NewJob]) -> None:
        """Raise `StorageFull` where these jobs would take the last of the disk; every push asks first."""
        del jobs

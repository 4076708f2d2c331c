"""What may tell a node that there is work: the doorbell on its own machine, and the database where it can."""

from __future__ import annotations

import selectors

from taskqueue.doorbell import Doorbell
from taskqueue.drivers.base import Listener


class Hints:
    """The sources of hints, watched by the dispatcher's selector. A source that fails is dropped, not mourned."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._bell: Doorbell | None = None
        self._listener: Listener | None = None

    def hang(self, bell: Doorbell) -> None:
        """Watch a doorbell."""
        self._bell = bell
        self._selector.register(bell, selectors.EVENT_READ, self)

    def attach(self, listener: Listener) -> None:
        """Watch what the database tells."""
        self._drop_listener()
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self)

    @property
    def listening(self) -> bool:
        """Say whether the database tells of new jobs."""
        return self._listener is not None

    def heard(self) -> bool:
        """Take in everything that was said; say whether there was anything."""
        rung = self._bell is not None and self._bell.heard()
        if self._listener is None:
            return rung
        told = self._listener.heard()
        if told is None:
            self._drop_listener()
            return True  # What it had to say is lost with it: look.
        return told or rung

    def close(self) -> None:
        """Watch nothing any more."""
        self._drop_listener()
        bell, self._bell = self._bell, None
        if bell is not None:
            self._selector.unregister(bell)
            bell.close()

    def _drop_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._selector.unregister(listener)
            listener.close()

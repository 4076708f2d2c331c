"""A hint between processes of one user on one machine that there is work: a datagram that says nothing.

Each node binds a socket in a folder that is named after the database; whoever has pushed sends one byte to every
socket there. So an idle node need not ask the database twenty times a second to start a job within a few milliseconds.
It is a hint and no more: a lost datagram, a folder of another user, a pusher on another machine, a full buffer cost
the time to the node's next look and nothing else. Nothing here raises.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final

from taskqueue.clock import Clock

SILENCE: Final = 0.02
"""Seconds between two rings of one process; a node that was woken looks about much more often than that for a while."""

_SUFFIX: Final = ".bell"
_LONGEST_ADDRESS: Final = 100
"""Bytes that the address of a local socket may have; Linux takes 107, others fewer."""


class Doorbell:
    """A node's end: readable when somebody has rung. ``fileno`` is for a selector."""

    def __init__(self, installation: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._path: Path | None = None
        with contextlib.suppress(OSError):
            path = _folder(installation) / f"{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
            if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
                for each in (path.parent.parent, path.parent):
                    with contextlib.suppress(FileExistsError):
                        each.mkdir(mode=0o700)
                _refuse_foreign(path.parent.parent)
                self._socket.bind(str(path))
                self._path = path

    @property
    def bound(self) -> bool:
        """Say whether anybody can ring here."""
        return self._path is not None

    def fileno(self) -> int:
        """Return the descriptor to be watched."""
        return self._socket.fileno()

    def heard(self) -> bool:
        """Take in every ring so far; say whether there was one."""
        rung = False
        with contextlib.suppress(OSError):
            while self._socket.recv(16):
                rung = True
        return rung

    def close(self) -> None:
        """Take the bell away, with what dead nodes left, and the folder where nothing else is in it."""
        self._socket.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
                _ring_all(self._path.parent)
                self._path.parent.rmdir()


class Ringer:
    """A pusher's end."""

    def __init__(self, installation: bytes, clock: Clock) -> None:
        self._installation = installation
        self._clock = clock
        self._quiet_until = 0.0

    def ring(self) -> bool:
        """Wake the nodes of this database on this machine, at most once in 20 ms; say whether it was time to."""
        now = self._clock.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + SILENCE
        with contextlib.suppress(OSError):
            folder = _folder(self._installation)
            _refuse_foreign(folder.parent)
            _ring_all(folder)
        return True


def _ring_all(folder: Path) -> None:
    """Send a byte to every bell in a folder; take those away behind which nobody listens any more."""
    bells = list(folder.glob("*" + _SUFFIX))
    if not bells:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for bell in bells:
            try:
                sender.sendto(b"!", str(bell))
            except ConnectionRefusedError:  # Its node is dead: nobody else would ever take the socket away.
                bell.unlink(missing_ok=True)
            except OSError:
                continue


def _folder(installation: bytes) -> Path:
    """Return the folder of a database's bells."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"taskqueue-{os.getuid()}" / installation[-8:].hex()


def _refuse_foreign(home: Path) -> None:
    """Raise `OSError` unless ``home`` is a folder to which this user alone can write."""
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(home)

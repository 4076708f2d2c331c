"""The supervisor's side of the template process: asks for workers, hears of their births and deaths."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskqueue.errors import ImportFailed
from taskqueue.node.access import Access
from taskqueue.node.slots import Slots
from taskqueue.node.wire import Channel
from taskqueue.payload import KeyRing

_ROOT = str(Path(__file__).resolve().parents[2])
# Not by PYTHONPATH, which the subprocesses of every job would inherit.
_START = """
import sys
sys.path.insert(0, {root!r})
from taskqueue.node.template import main
sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
"""
_SECRETS = ("ENCRYPTION_KEY", "DATABASE_URL", "DB_PASSWORD", "SERVER_TOKEN")
"""Variables that a job's own subprocesses must not inherit."""


@dataclass(frozen=True, slots=True)
class Upbringing:
    """What a template needs to know before it can fork workers."""

    imports: Sequence[str]
    ring: KeyRing | None
    log_level: str
    log_format: str
    salt: bytes
    """What the unique keys of jobs are digested with, which jobs push."""
    access: Access | None = None
    """How workers reach the database, should a job class be transactional."""


class Nursery:
    """A running template process. When it dies its workers die with it, and a new one is made."""

    def __init__(self, upbringing: Upbringing, slots: Slots) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", _START.format(root=_ROOT), str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
                process_group=0,  # Ctrl-C in a terminal reaches the supervisor alone.
            )
        self.channel = Channel(ours)
        keys = [(key.key_id, key.secret) for key in upbringing.ring.keys] if upbringing.ring is not None else []
        setup = {
            "path": sys.path,
            "directory": str(Path.cwd()),
            "imports": list(upbringing.imports),
            "keys": keys,
            "salt": upbringing.salt,
            "slots": slots.number,
            "places": slots.places,
            "log_level": upbringing.log_level,
            "log_format": upbringing.log_format,
            "access": tuple(upbringing.access) if upbringing.access is not None else None,
        }
        self.channel.send_with(setup, [slots.descriptor])
        self.ready = False
        self.classes: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        """Return the template's process id."""
        return self._process.pid

    def spawn(self, index: int, descriptors: list[int]) -> None:
        """Ask for a worker, which gets the open files; they are closed here."""
        with contextlib.suppress(OSError):  # Where the template is gone, its channel tells as well.
            self.channel.send_with(("spawn", index), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def kill(self, pid: int, number: int) -> None:
        """Have a worker killed by its parent, which alone knows for certain that the pid still is the worker's."""
        self.channel.send(("kill", pid, int(number)))

    def kill_all(self) -> None:
        """Kill the template and its workers, which are one process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def hear(self) -> list[Any]:
        """Return what the template has said; raise EOFError when it is gone, `ImportFailed` when it could not begin."""
        messages = []
        for message in self.channel.receive():
            if message[0] == "failed":
                raise ImportFailed(message[1])
            if message[0] == "ready":
                self.ready, self.classes = True, tuple(message[1])
            else:
                messages.append(message)
        return messages

    def close(self) -> None:
        """End the template, and with it every worker that is left."""
        self.channel.close()
        self._process.kill()
        self._process.wait()

    def reap(self) -> int | None:
        """Return the template's exit code once it has ended."""
        return self._process.poll()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}

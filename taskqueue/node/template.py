"""The template process: imports the job modules once, then forks a worker whenever the supervisor asks for one.

A process of our own rather than multiprocessing's forkserver, which passes over a failing import in silence and cannot
say how a child died. It has no threads and no database connection. After ``gc.freeze()`` a forked worker shares its
memory and keeps a few MB to itself, where it would copy all of it at its first garbage collection otherwise.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from taskqueue.errors import TaskQueueError
from taskqueue.node.access import Access
from taskqueue.node.birth import adopt_orphans, die_with_parent, run_worker
from taskqueue.node.logs import configure_logging
from taskqueue.node.readiness import readable
from taskqueue.node.slots import Slots
from taskqueue.node.transacting import access_for_jobs
from taskqueue.node.wire import Channel
from taskqueue.node.worker import WorkerParts
from taskqueue.payload import Codec, KeyRing, MasterKey
from taskqueue.registry import REGISTRY, import_jobs

LOOK_EVERY = 1.0
"""Longest time between two looks at the node's lease; a look falls due at its end."""
KILL_AGAIN_EVERY = 0.05

_logger = logging.getLogger("taskqueue.template")


class Template:
    """Answers the supervisor: ``spawn`` and ``kill`` in, ``spawned`` and ``exited`` out."""

    def __init__(self, channel: Channel, slots: Slots, codec: Codec, salt: bytes, access: Access | None) -> None:
        self._salt = salt
        self._access = access
        self._channel = channel
        self._slots = slots
        self._codec = codec
        self._workers: dict[int, int] = {}
        self._woken, waker = os.pipe()
        for descriptor in (self._woken, waker):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)

    def serve(self) -> None:
        """Serve until the supervisor is gone."""
        while True:
            waiting: list[Any] = [self._channel, self._woken]
            left = self._slots.lease_left()
            ready = readable(waiting, min(LOOK_EVERY, left) if left > 0 else KILL_AGAIN_EVERY)
            if self._slots.lease_is_over():
                self._kill_all()
            if self._woken in ready:
                os.read(self._woken, 4096)
            self._reap()
            if self._channel.fileno() in ready:
                try:
                    messages = self._channel.receive_with()
                except EOFError:
                    return
                for message in messages:
                    self._answer(message)

    def _kill_all(self) -> None:
        """Kill every worker: the node's lease is nearly over, and its supervisor did not see to it.

        It may be stopped, or wait for something; other nodes will take the jobs over in a moment.
        """
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)

    def _answer(self, message: tuple[Any, ...]) -> None:
        if message[0] == "spawn":
            self._spawn(message[1])
        elif message[0] == "kill":
            pid, number = message[1:]
            if pid in self._workers:  # Not reaped yet, so the pid cannot belong to anybody else.
                os.kill(pid, number)

    def _spawn(self, index: int) -> None:
        connection, reader = self._channel.take_descriptors(2)
        template = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            _logger.error("a worker could not be forked: %s", error.strerror)  # noqa: TRY400 - no traceback
            os.close(connection)
            os.close(reader)
            self._channel.send(("exited", index, 0, 1, 0))
            return
        if pid == 0:
            self._become_worker(index, connection, reader, template)
        os.close(connection)
        os.close(reader)
        self._workers[pid] = index
        self._channel.send(("spawned", index, pid))

    def _become_worker(self, index: int, connection: int, reader: int, template: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._channel.close()
            own = socket.socket(fileno=connection)
            slot = self._slots.of(index)
            places = self._slots.places
            turns = self._slots.descriptor
            parts = WorkerParts(
                self._codec, self._salt, index, slot, own, reader, template, self._access, places, turns
            )
            code = run_worker(parts)
        except BaseException as error:
            _logger.error("a worker could not begin: %s", type(error).__name__)  # noqa: TRY400 - no message, no traceback
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            index = self._workers.pop(pid, None)
            if index is not None:
                code = os.waitstatus_to_exitcode(status)
                self._channel.send(("exited", index, pid, code, usage.ru_maxrss))


def main(control: int, parent: int) -> int:
    """Be the template of a node: ``control`` is the open file that leads to the supervisor ``parent``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(parent)
    adopt_orphans()
    channel = Channel(socket.socket(fileno=control))
    try:
        template = _set_up(channel)
    except TaskQueueError as error:
        channel.send(("failed", str(error)))
        channel.close()
        return error.exit_code
    gc.collect()
    gc.freeze()
    channel.send(("ready", REGISTRY.names()))
    template.serve()
    channel.close()
    return 0


def _set_up(channel: Channel) -> Template:
    """Import the job modules and return the template, which keeps of the setup only what workers need.

    In a function of its own: workers are forked below `main` and inherit its frame, and no job is to find the way to
    the database there, or the secrets of the keys, where its class has no business with them.
    """
    setup = _receive_setup(channel)
    configure_logging(setup["log_level"], setup["log_format"])
    sys.path[:] = setup["path"]
    import_jobs(setup["imports"], Path(setup["directory"]))
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        _logger.warning("a job module started threads at import (%s); they do not exist in workers", names)
    codec = Codec(_key_ring(setup["keys"]))
    slots = Slots(channel.take_descriptors(1)[0], setup["slots"], setup["places"])
    return Template(channel, slots, codec, setup["salt"], access_for_jobs(setup["access"]))


def _receive_setup(channel: Channel) -> dict[str, Any]:
    messages: list[Any] = []
    while not messages:
        readable([channel])
        messages = channel.receive_with()
    setup: dict[str, Any] = messages[0]
    return setup


def _key_ring(keys: list[tuple[str, bytes]]) -> KeyRing | None:
    if not keys:
        return None
    active, *others = (MasterKey(key_id, secret) for key_id, secret in keys)
    return KeyRing(active, others)

"""What PID 1 owes to its machine: to bury the processes whose parents are gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from taskqueue.node.nursery import Nursery

_PID_1 = 1


def reap_orphans(nursery: Nursery | None, own_pid: Callable[[], int] = os.getpid) -> None:
    """Reap what has ended, where this process is PID 1: it inherits what a dead template or its workers leave behind.

    The template itself is left to its ``nursery``, which needs its exit code. Elsewhere some other process inherits
    the orphans, and nothing is done.
    """
    if own_pid() != _PID_1:
        return
    with contextlib.suppress(ChildProcessError):  # There are no children at all.
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if nursery is not None and ended.si_pid == nursery.pid:
                return  # What waits behind it is reaped once it is.
            os.waitpid(ended.si_pid, os.WNOHANG)

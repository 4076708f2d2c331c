"""The memory that one job may take: an end to it that its handler can catch, and a measure for whoever must kill.

A job with a ``memory_limit`` runs under a soft ``RLIMIT_DATA`` of what its worker has mapped at that moment and the
limit: from there on the kernel refuses, and Python raises `MemoryError`. What the kernel does not count there, such as
shared anonymous memory, is left to the supervisor, which measures the worker's private memory from outside. Both are
Linux's; elsewhere a limit is not enforced. The subprocesses of a handler each have the limit for themselves.
"""

from __future__ import annotations

import errno
import logging
import resource
import sys
from pathlib import Path

from taskqueue.quantities import format_size

SLACK = 16 * 1024**2
"""Bytes beyond the limit at which the supervisor kills: the handler is to have its exception first, and a worker comes
to own some megabytes of its template's memory by merely touching them."""

_LINUX = sys.platform == "linux"
_UNSET = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_PRIVATE = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:", "Swap:")

_logger = logging.getLogger("taskqueue.worker")


class MemoryLimitExceeded(MemoryError):
    """The job took more memory than its ``memory_limit``."""


class MemoryCap:
    """The cap on this process, for one job at a time."""

    def __init__(self) -> None:
        self._limit = 0
        self._former = _UNSET

    def put_on(self, limit: int) -> int:
        """Cap the memory of this process, and return the private memory above which it is to be killed; 0 for none."""
        mapped, private = _mapped_data(), private_memory("self")
        if mapped is None or private is None:
            if _LINUX:
                _logger.warning("the memory of this process could not be read: the job runs without its memory_limit")
            return 0
        self._former = resource.getrlimit(resource.RLIMIT_DATA)
        self._limit = limit
        resource.setrlimit(resource.RLIMIT_DATA, (_lower(mapped + limit, self._former), self._former[1]))
        return private + limit + SLACK

    def take_off(self) -> None:
        """Lift the cap, if there is one."""
        if self._limit:
            resource.setrlimit(resource.RLIMIT_DATA, self._former)
            self._limit = 0

    def lift_after(self, error: BaseException) -> BaseException:
        """Lift the cap, so that a failure can be dealt with, and return the error as it is to be told."""
        limit = self._limit
        self.take_off()
        refused = type(error) is MemoryError or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        if not limit or not refused:
            return error
        told = MemoryLimitExceeded(f"the job took more than its memory_limit of {format_size(limit)}")
        return told.with_traceback(error.__traceback__)


CAP = MemoryCap()
"""The cap of this process; the kernel knows only one as well."""


def private_memory(pid: int | str) -> int | None:
    """Return the bytes that a process shares with nobody, None where that cannot be read. Costs 0.2 ms."""
    if not _LINUX:
        return None
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in lines if line.startswith(_PRIVATE)) * 1024


def _mapped_data() -> int | None:
    """Return what the kernel compares with the limit: private writable memory, touched or not."""
    if not _LINUX:
        return None
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # As where every file that may be open is.
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), None)


def _lower(wanted: int, former: tuple[int, int]) -> int:
    """Return the limit that is wanted, or a lower one that is there already."""
    return min([wanted, *(each for each in former if each != resource.RLIM_INFINITY)])

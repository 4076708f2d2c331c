"""Who this node is, and whether another node on the same host is certainly dead."""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from taskqueue.drivers.values import NodeIdentity, NodeRow


def describe_node(name: str | None, lease: float, info: Mapping[str, Any]) -> NodeIdentity:
    """Return the identity of a node that starts now: a random incarnation, and the proof of its death for later."""
    host = socket.gethostname()
    return NodeIdentity(
        incarnation=uuid4().bytes,
        name=name or host,
        host=host,
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        process_started=process_started(os.getpid()),
        lease_ms=round(lease * 1000),
        info=json.dumps(dict(info)),
    )


def certainly_dead(node: NodeRow) -> bool:
    """Say whether a node ran on this host, in this boot and pid namespace, as a process that is no more.

    A pid alone proves nothing, since it may belong to another process by now: the time at which the process started
    has to be the same too. False where anything is unknown.
    """
    if not is_local(node):
        return False
    if _is_gone(node.pid):
        return True
    started = process_started(node.pid)
    return None not in (started, node.process_started) and started != node.process_started


def is_local(node: NodeRow) -> bool:
    """Say whether a node runs on this host, in this boot and pid namespace.

    By the host's name too: virtual machines that were cloned while they ran share the id of their boot.
    """
    if node.boot_id is None or node.host != socket.gethostname():
        return False
    return node.boot_id == _boot_id() and node.pid_namespace == _pid_namespace()


@functools.cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


@functools.cache
def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def process_started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot, or None where that cannot be known.

    From the kernel's own record: what psutil reports adds the time of the boot, which moves when the wall clock is set.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _is_gone(pid: int) -> bool:
    """Say whether no process has this pid, or a zombie that waits to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # It exists and is another user's, whose record we may not be shown.
    return _stat(pid)[:1] in (["Z"], ["X"])


def _stat(pid: int) -> list[str]:
    """Return the kernel's record of a process from its state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []

"""What an SQLite database needs to stay healthy, and how to see whether it is.

No ANALYZE and no PRAGMA optimize: with the statistics of 100,000 finished jobs every statement had the plan that it has
without. No incremental vacuum either: what a purge leaves free is filled again by the jobs that come.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from taskqueue.drivers.examination import each_of, error, ok, size_text, warning
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.sqlite_room import LEAST_FREE, Room, space_at
from taskqueue.drivers.values import Finding
from taskqueue.errors import StoreError

LARGE_LOG: Final = 64 * 1024**2
"""Bytes of the write-ahead log from which on it is emptied; without a reader in the way it has 4 MB."""
CHECKPOINT_EVERY: Final = 10.0

_OLDEST: Final = (3, 35, 0)
_NETWORKS: Final = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
    )
) | {"smb3", "smbfs", "vboxsf"}
_MOUNTS: Final = Path("/proc/self/mountinfo")
_FULL: Final = 2
_LITTLE_SPACE, _NO_SPACE = 1024**3, 64 * 1024**2
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MUCH_UNUSED: Final = 256 * 1024**2


def log_of(path: Path) -> Path:
    """Return the file of the write-ahead log."""
    return path.with_name(f"{path.name}-wal")


def log_size(path: Path) -> int:
    """Return the size of the write-ahead log in bytes; asks the file system alone."""
    try:
        return log_of(path).stat().st_size
    except FileNotFoundError:
        return 0


def empty_log(connection: Connection) -> bool:
    """Write the log back into the database and cut it to nothing; False where a reader or writer is in the way."""
    busy, _, _ = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).one()
    return not busy


def examine(connection: Connection, path: Path | None, *, full: bool) -> list[Finding]:
    """Return what there is to say of a database in a file."""
    found = each_of(connection, [("version", _version)])
    if path is None:
        return [*found, ok("durability", "kept in memory: it ends with this process")]
    return [
        *found,
        *each_of(connection, [("durability", lambda link: _durability(link, full=full)), ("space", _unused)]),
        _log(path),
        _room(path),
        _mount(path),
        _rights(path),
    ]


def _version(_connection: Connection) -> Iterator[Finding]:
    here = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= _OLDEST:
        yield ok("version", f"SQLite {here}")
    else:
        needed = ".".join(map(str, _OLDEST))
        yield error("version", f"SQLite {here} is too old, {needed} is needed", "use a newer Python or system library")


def _durability(connection: Connection, *, full: bool) -> Iterator[Finding]:
    mode = connection.execute(text("PRAGMA journal_mode")).scalar_one()
    if mode != "wal":
        sentence = f"the journal mode is {mode}: readers and writers lock each other out"
        yield error("durability", sentence, "run `worker doctor --fix` while nothing else has the database open")
        return
    level = connection.execute(text("PRAGMA synchronous")).scalar_one()
    if full and level < _FULL:
        yield error("durability", "a power cut may take the last pushes with it", "set DB_DURABILITY=full")
    elif full:
        yield ok("durability", "a push survives a power cut (write-ahead log, synchronous)")
    else:
        yield ok("durability", "a push survives the death of any process; a power cut may take the last ones with it")


def _unused(connection: Connection) -> Iterator[Finding]:
    pages, free, page = (
        connection.execute(text(statement)).scalar_one()
        for statement in ("PRAGMA page_count", "PRAGMA freelist_count", "PRAGMA page_size")
    )
    sentence = f"{size_text(pages * page)}, of which {size_text(free * page)} are free for new jobs"
    if free * page >= _MUCH_UNUSED and free * 2 > pages:
        fix = "to give the space back stop the nodes and run `sqlite3 FILE VACUUM`"
        yield warning("size", sentence, fix)
    else:
        yield ok("size", sentence)


def _log(path: Path) -> Finding:
    size = log_size(path)
    sentence = f"the write-ahead log has {size_text(size)}"
    if size < LARGE_LOG:
        return ok("oldest transaction", sentence)
    fix = "look for a program that holds the database open in a transaction, such as a database browser"
    return warning("oldest transaction", f"{sentence}: a reader keeps it from being written back", fix)


def _room(path: Path) -> Finding:
    space = space_at(path)
    free = space.free
    kept = space.reserve - space.missing
    aside = f", and {size_text(kept)} set aside for the last writes" if kept else ""
    sentence = f"{size_text(free)} are free on the disk{aside}"
    if free >= _LITTLE_SPACE and space.left >= LEAST_FREE:
        return ok("disk", sentence)
    fix = "make room on it: what a purge removes leaves room in the file, not on the disk"
    if space.missing and space.left < LEAST_FREE:
        needed = size_text(space.missing + LEAST_FREE)
        sentence = f"the disk is full: {size_text(free)} are free, and nothing is claimed or pushed until {needed} are"
        return error("disk", sentence, fix)
    if space.left < LEAST_FREE:
        return error("disk", f"{sentence}: nothing is pushed below {size_text(LEAST_FREE)}", fix)
    return error("disk", sentence, fix) if free < _NO_SPACE else warning("disk", sentence, fix)


def _mount(path: Path) -> Finding:
    kind = file_system(path, _MOUNTS.read_text(encoding="utf-8") if _MOUNTS.exists() else "")
    if kind in _NETWORKS:
        sentence = f"the file lies on a network ({kind}), where locks do not hold"
        return error("file system", sentence, "move it to a local disk, or use a database server")
    return ok("file system", f"the file lies on a local disk ({kind})" if kind else "of an unknown kind")


def file_system(path: Path, mounts: str) -> str | None:
    """Return the type of the file system that a path lies on, by the lines of ``mountinfo``."""
    found: tuple[int, str] | None = None
    place = path.resolve()
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mounted = Path(before.split()[4].replace("\\040", " "))
        # Of two mounts on one point the later one is seen.
        if place.is_relative_to(mounted) and (found is None or len(mounted.parts) >= found[0]):
            found = len(mounted.parts), after.split()[0]
    return None if found is None else found[1]


def _rights(path: Path) -> Finding:
    if not readable_by_others(path):
        return ok("rights", "only its owner can read the file")
    names = ", ".join(each.name for each in readable_by_others(path))
    fix = "run `worker doctor --fix`, or chmod 600 each of them"
    return warning("rights", f"other users of this machine can read {names}", fix)


def readable_by_others(path: Path) -> list[Path]:
    """Return which of the database's files others than the owner may open."""
    files = (path, log_of(path), path.with_name(f"{path.name}-shm"))
    return [each for each in files if each.exists() and each.stat().st_mode & _OTHERS]


def close_to_others(path: Path) -> list[str]:
    """Leave the database's files to their owner alone; say what was done."""
    opened = readable_by_others(path)
    for each in opened:
        each.chmod(0o600)
    return [f"took the rights of others from {each.name}" for each in opened]


def restore_log_mode(connection: Connection) -> list[str]:
    """Switch the write-ahead log on where it is off."""
    if connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal":
        return []
    if connection.execute(text("PRAGMA journal_mode = WAL")).scalar_one() != "wal":
        return []
    return ["switched the write-ahead log on"]


def tend(driver: SQLDriver, path: Path | None, room: Room, node_id: int) -> list[str]:
    """Empty a log that has grown large, where no reader needs it any more; on a full disk a small one as well.

    There the reserve is set aside again as soon as that is possible.
    """
    if path is not None and room.is_short:
        with contextlib.suppress(StoreError):  # The database may have to grow for it: nothing is lost by waiting.
            driver.read(empty_log)
    room.restore()
    if path is None or log_size(path) < LARGE_LOG or not driver.take_turn("checkpoint", node_id, CHECKPOINT_EVERY):
        return []
    return ["wrote the log back into the database"] if driver.read(empty_log) else []

"""Where an SQLite database lies, what is wrong with a path, and who may read a new file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

from taskqueue.errors import ConfigurationError, SchemaError, StoreError, TaskQueueError

_SMALLEST = 512
"""Bytes of the smallest database; SQLite would take a shorter file for an empty one and write over it."""
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Location:
    """A database file, or (without a path) memory that the threads of this process share."""

    path: Path | None
    uri: str
    """What SQLite opens: never creates a file."""

    @property
    def address(self) -> str:
        """Return the URL for people."""
        return f"sqlite:///{self.path}" if self.path else "sqlite://"


def path_in(url: str) -> Path | None:
    """Return the path in ``sqlite:///relative`` or ``sqlite:////absolute`` as it is written, None for memory."""
    rest = url.partition("://")[2]
    if rest and not rest.startswith("/"):
        raise ConfigurationError(
            "an SQLite URL has no host: write sqlite:///PATH for a relative path or sqlite:////PATH for an absolute one"
        )
    name = rest[1:].partition("?")[0]
    return None if name in ("", ":memory:") else Path(name)


def locate(url: str) -> Location:
    """Return the location that a URL names; the path is fixed now, a later change of folder does not move it."""
    path = path_in(url)
    if path is None:
        return Location(None, f"file:/taskqueue-{os.getpid()}-{next(_numbers)}?vfs=memdb")
    path = path.absolute()
    return Location(path, f"file:{quote(str(path))}?mode=rw")


def create_file(path: Path) -> None:
    """Make an empty database file that only its owner may read; does nothing where there is one."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise fault_of(path) or StoreError(f"{path} cannot be created: {error.strerror}") from error


def fault_of(path: Path) -> TaskQueueError | None:
    """Return what is wrong with a path, as an error with one sentence, or None where nothing can be seen.

    Never opens the file: to close it again would drop every lock that this process holds on it (POSIX locks belong to
    the process), and the next one to leave the database would delete its log under us, with acknowledged jobs in it.
    """
    folder = path.parent
    if not folder.is_dir():
        return ConfigurationError(
            f"the folder {folder} for the database does not exist: create it, or name another path in DB_PATH"
        )
    if path.is_dir():
        return ConfigurationError(f"{path} is a folder: name a file for the database in DB_PATH")
    if not path.exists():
        if not os.access(folder, os.W_OK):
            return StoreError(f"the folder {folder} is not writable, so {path.name} cannot be created there")
        return SchemaError(f"{path} does not exist: run `worker db:upgrade` to create the database")
    if not os.access(path, os.R_OK):
        return StoreError(f"{path} cannot be read: give this user the rights to the file and its folder")
    if 0 < path.stat().st_size < _SMALLEST:
        return not_ours(path)
    return None


def not_ours(path: Path | None) -> ConfigurationError:
    """Return the error for a file that is no database at all."""
    return ConfigurationError(f"{path} is not an SQLite database; it was not touched: name another path in DB_PATH")


def read_only(path: Path | None) -> StoreError:
    """Return the error for a database that cannot be written."""
    return StoreError(
        f"{path or 'the database'} is read-only: give this user the right to write to the file and to its folder,"
        " or mount the disk for writing"
    )

"""Every error that taskqueue raises, in one tree.

::

    TaskQueueError                  1   anything of ours went wrong
    ├── UsageError                  2   an argument, option or flag cannot be used
    │   ├── InvalidOption           2   a job option is unknown or out of bounds
    │   ├── PayloadError            2   a payload cannot be stored
    │   │   ├── PayloadTypeError    2   a value of a type that does not survive the round trip
    │   │   ├── PayloadTooLarge     2   over the size limit
    │   │   └── PayloadTooDeep      2   nested too deeply, or containing itself
    │   ├── DependencyError         2   a job depends on one that does not exist, or on itself
│   └── NotRunning              2   something was asked of a job that only a running one can answer
    ├── NotFound                    3   the named thing does not exist
    │   ├── JobNotFound             3
    │   └── UnknownJobClass         3   the registry has no such class
    ├── JobError                    1   a job did not end as hoped
    │   ├── JobFailed               1   raised by waiting for a job that failed
    │   ├── JobLost                 1   another worker has taken the job over
    │   ├── InvalidTransition       1   the job is not in a state from which this can happen
    │   └── DuplicateJob            1   another live job has the same unique key
    ├── CannotOpen                  1   sealed bytes that this key ring cannot open
    ├── StoreError                  1   the store refused
    │   ├── DatabaseUnreachable    69   no connection could be made
    │   ├── DatabaseBusy           75   somebody else held the lock for too long
    │   └── StorageFull            75   no room is left to store a job
    ├── WaitTimeout                75   the time given to wait is over
    └── ConfigurationError         78   settings, keys or schema do not fit
        ├── InvalidSetting         78   a setting has a value that it cannot have
        │   └── SettingsConflict   78   two settings that cannot both hold
        ├── UnknownSetting         78   a key that no setting has
        ├── KeyMissing             78   no encryption key is configured
        ├── KeyRejected            78   a key that is malformed, weak or not the one in use
        ├── ImportFailed           78   a module with job classes cannot be imported
        └── SchemaError            78   the tables are missing, older, newer or not ours

The number is the exit code of a command that ends with the error. A message says what was expected, what came
and what to do next; it never holds a payload, a key or a password.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class TaskQueueError(Exception):
    """The root of everything that taskqueue raises."""

    exit_code: ClassVar[int] = 1


class UsageError(TaskQueueError):
    """An argument, option or flag cannot be used."""

    exit_code = 2


class InvalidOption(UsageError, ValueError):
    """A job option is unknown, of the wrong type or out of bounds."""


class PayloadError(UsageError):
    """A payload cannot be stored; nothing was written."""


class PayloadTypeError(PayloadError, TypeError):
    """A payload holds a value that would not come back equal in value and type."""


class PayloadTooLarge(PayloadError, ValueError):
    """A payload is larger than the limit."""


class PayloadTooDeep(PayloadError, ValueError):
    """A payload is nested too deeply, or contains itself."""


class DependencyError(UsageError, ValueError):
    """A job names a parent that does not exist, or its parents form a cycle; nothing was stored."""


class NotRunning(UsageError, RuntimeError):
    """Something was asked of a job object that only a job in its handler can answer."""


class NotFound(TaskQueueError, LookupError):
    """The named thing does not exist."""

    exit_code = 3


class JobNotFound(NotFound):
    """No job, live or finished, has this id."""


class UnknownJobClass(NotFound):
    """The registry holds no job class of this name."""


class JobError(TaskQueueError):
    """A job did not end as hoped."""


class JobFailed(JobError):
    """A job that was waited for ended as failed or cancelled."""


class JobLost(JobError):
    """Another worker has taken this job over, so this write was not stored."""


class InvalidTransition(JobError):
    """The job is not in a state from which this can happen."""


class DuplicateJob(JobError):
    """Another job that waits or runs has the same unique key; nothing was stored."""


class CannotOpen(TaskQueueError):
    """Sealed bytes cannot be opened with the keys at hand.

    One text for every cause (wrong key, cut bytes, bad flag, bad tag), so that an attacker who can write to the
    database learns nothing from the answer.
    """


class StoreError(TaskQueueError):
    """The store refused an operation."""


class DatabaseUnreachable(StoreError):
    """No connection to the database could be made, or it was lost."""

    exit_code = 69


class DatabaseBusy(StoreError):
    """Another process held the database's lock for longer than the time allowed."""

    exit_code = 75


class StorageFull(StoreError):
    """The database has no room left; what is stored stays safe."""

    exit_code = 75


class WaitTimeout(TaskQueueError, TimeoutError):
    """The time given to wait is over and the job has not finished."""

    exit_code = 75


class ConfigurationError(TaskQueueError):
    """Settings, keys or schema do not fit together."""

    exit_code = 78


class InvalidSetting(ConfigurationError):
    """A setting has a value that it cannot have."""


class SettingsConflict(InvalidSetting):
    """Settings that are right one by one and cannot hold together; ``names`` are theirs."""

    def __init__(self, message: str, *names: str) -> None:
        """Keep the names of the settings beside the sentence."""
        super().__init__(message)
        self.names = names


class UnknownSetting(ConfigurationError):
    """A configuration file holds a key that no setting has."""


class KeyMissing(ConfigurationError):
    """No encryption key is configured."""


class KeyRejected(ConfigurationError):
    """An encryption key is malformed, weak, or not the one that sealed the data."""


class ImportFailed(ConfigurationError):
    """A module with job classes cannot be imported."""


class SchemaError(ConfigurationError):
    """The tables are missing, older or newer than this release, or another application's."""


def did_you_mean(given: str, known: Iterable[str], *, most: int = 2) -> str:
    """Return ``"; did you mean a or b?"`` for the nearest of ``known``, or an empty string."""
    near = difflib.get_close_matches(given, list(known), n=most, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""

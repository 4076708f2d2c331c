"""Which jobs count as the same: the keys under which a unique index finds them, and what tells one push from another.

Neither a unique key nor a payload can be read off, or guessed and tested by, the column that holds the digest: a key of
the user is digested with the salt of the installation, what `push_once` derives with a secret of the encryption key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from taskqueue.drivers.values import JobRow, NewJob
from taskqueue.errors import CannotOpen
from taskqueue.job import Job
from taskqueue.payload import Codec, KeyRing, Purpose, canonical

_LABEL = b"push once"
_BY_CLASS, _BY_PAYLOAD = b"class", b"payload"
_SAME_COLUMN = {
    "queue": "queue",
    "priority": "rank",
    "tags": "tags",
    "category": "category",
    "max_attempts": "max_attempts",
    "retry_interval": "backoff",
    "backoff": "backoff",
    "timeout": "timeout_ms",
    "memory_limit": "memory_limit",
    "force_spawn": "force_spawn",
    "delivery": "delivery",
}
"""The options that are compared by what is stored of them."""


def digest_of_key(key: str, salt: bytes) -> bytes:
    """Return what is stored of a unique key: a keyed hash, so that the table does not show it."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32, key=salt).digest()


def secret_of(ring: KeyRing | None, known: Sequence[str], salt: bytes) -> bytes:
    """Return the secret for the keys that `push_once` derives; ``known`` are the database's key ids, oldest first.

    It comes from the oldest key that is still loaded, not from the active one: while keys are changed, processes that
    know both and processes that know only the old one derive the same. It changes when the old key is taken out of the
    ring; jobs from before that are not found any more then. Without encryption it comes from the salt, which is stored
    in clear beside the payloads.
    """
    if ring is None:
        return hmac.digest(salt, _LABEL, "sha256")
    oldest = next((key for key_id in known if (key := ring.get(key_id)) is not None), ring.active)
    return KeyRing(oldest).derive(_LABEL)


def derived_key(secret: bytes, job: Job, *, ignore_payload: bool) -> bytes:
    """Return the unique key that stands for a job's class, and for its payload too unless that is ignored.

    Payloads are the same when they are equal in value and type, whatever the order of their dicts: 1 is not 1.0 nor
    True, a tuple is no list. Raises `PayloadError` for a payload that cannot be stored.
    """
    name = job.job_class.encode("utf-8", "surrogatepass")
    what = _BY_CLASS if ignore_payload else _BY_PAYLOAD
    content = b"" if ignore_payload else canonical(job.payload)
    message = b"".join(len(part).to_bytes(8) + part for part in (what, name, content))
    return hmac.digest(secret, message, "sha256")


def has_same_payload(job: Job, other: JobRow, codec: Codec) -> bool:
    """Say whether a stored job has this job's payload; one that cannot be opened has not."""
    if other.payload is None:
        return False
    try:
        opened = codec.open(other.payload, Purpose.PAYLOAD, other.id, other.job_class)
    except CannotOpen:
        return False
    return canonical(opened) == canonical(job.payload)


def has_same_options(new: NewJob, other: JobRow, given: frozenset[str]) -> bool:
    """Say whether a stored job has the options of ``given`` (those that the pusher named) as ``new`` has them.

    A delay is compared as such, not by the time at which it ends; times count only until the first attempt.
    """
    named = [
        (getattr(new, _SAME_COLUMN[name]), getattr(other, _SAME_COLUMN[name])) for name in given & _SAME_COLUMN.keys()
    ]
    if "expires_in" in given:
        named.append((_after(new, new.expires_at), _after(other, other.expires_at)))
    if not other.attempt and given & {"at", "run_at"}:
        named.append((new.run_at, other.run_at))
    if not other.attempt and "delay" in given:
        named.append((_after(new, new.run_at), _after(other, other.run_at)))
    return all(wanted == found for wanted, found in named)


def _after(job: Any, at: int | None) -> int | None:
    return None if at is None else at - int(job.created_at)

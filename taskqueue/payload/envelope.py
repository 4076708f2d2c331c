"""The sealed form of a payload, bound to its place (`docs/decisions/0002-envelope.md` has the layout and the reasons).

::

    3       magic ``TQ``, version 1
    1       suite: 1 = HKDF-SHA256 and AES-256-GCM, 0 = clear
    1       flags: bit 0 = zstd, the others are 0
    4       length before compression, big-endian
    1 + n   key id, 1 to 32 of a-z 0-9 _ -
    16      salt      (suite 1 alone)
    12      nonce     (suite 1 alone)
    rest    body and a tag of 16 bytes

Everything before the body is authenticated, and with it the purpose, the job id and the job class, so bytes that are
moved to another row, column or class do not open. The queue is not bound: it may change.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import ClassVar, Never, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from taskqueue.errors import CannotOpen
from taskqueue.payload.compression import decompress
from taskqueue.payload.keys import CLEAR_KEY_ID, KEY_LENGTH, KeyRing, MasterKey

MESSAGES_PER_SALT = 2**20
CACHED_SUBKEYS = 1024
_MAGIC = b"TQ\x01"
_ZSTD = 1
_FLAGS_AT, _LENGTH_AT, _KEY_ID_AT = 4, 5, 9
_SALT, _NONCE, _TAG, _LENGTH, _JOB_ID = 16, 12, 16, 4, 16
_SHORTEST_SEALED = _KEY_ID_AT + 2 + _SALT + _NONCE + _TAG
_KEY_ID = re.compile(rb"[a-z0-9_-]{1,32}")


class _Forks:
    """Counts the forks that lie behind this process.

    A child that went on with its parent's salt would spend the same allowance of messages a second time.
    """

    count: ClassVar[int] = 0

    @classmethod
    def note(cls) -> None:
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.note)


class Purpose(Enum):
    """What the sealed bytes are for; bytes of one purpose do not open as another."""

    PAYLOAD = "payload"
    RESULT = "result"
    ERROR = "error"
    PROGRESS = "progress"
    CHECKPOINT = "checkpoint"
    SCHEDULE = "schedule"

    def __init__(self, label: str) -> None:
        # Enum's own attributes cost ten times as much as a plain one.
        self.label = label
        self.binding = bytes([len(label)]) + label.encode("ascii") + bytes([_JOB_ID])


class Envelope(Protocol):
    """Puts bytes into envelopes and takes them out."""

    def seal(self, body: bytes, raw_length: int, place: bytes, *, compressed: bool) -> bytes:
        """Return the envelope of ``body``, which had ``raw_length`` bytes before compression, bound to ``place``."""
        ...

    def open(self, blob: bytes, place: bytes, limit: int) -> bytes:
        """Return the uncompressed bytes, ``limit`` at most, or raise `CannotOpen`."""
        ...


def place_of(purpose: Purpose, job_id: bytes, job_class: str) -> bytes:
    """Return what the bytes are bound to, each part with its length: ``ab`` + ``c`` is not ``a`` + ``bc``.

    Raises ValueError when ``job_id`` does not have 16 bytes.
    """
    if len(job_id) != _JOB_ID:
        raise ValueError(f"a job id has {_JOB_ID} bytes, got {len(job_id)}")
    return purpose.binding + job_id + _class_binding(job_class)


@lru_cache(1024)
def _class_binding(job_class: str) -> bytes:
    name = job_class.encode("utf-8", "surrogatepass")
    return len(name).to_bytes(4) + name


def key_id_of(blob: bytes) -> str:
    """Return the id of the key that sealed ``blob`` (``clear`` for none) without opening it, or raise `CannotOpen`."""
    key_id = _claimed_key_id(blob)
    if key_id is None:
        raise CannotOpen("these bytes are not an envelope of taskqueue")
    return key_id


def cannot_open(purpose: Purpose, job_id: bytes, blob: bytes) -> CannotOpen:
    """Return the one error for every cause: it tells nothing but which job and which key."""
    key = _claimed_key_id(blob) or "?"
    return CannotOpen(f"{purpose.label} of job {UUID(bytes=job_id)} cannot be opened with key {key}")


class _SealingKey:
    """A subkey with the rest of its allowance of messages."""

    __slots__ = ("aead", "forks", "name", "uses")

    def __init__(self, master: MasterKey, messages: int) -> None:
        salt = os.urandom(_SALT)
        self.forks = _Forks.count
        self.name = _named(master.key_id) + salt
        self.aead = _subkey(master, salt)
        self.uses = iter(range(messages))


class SealedEnvelope:
    """Suite 1: AES-256-GCM under subkeys of a key ring. Refuses suite 0, so a writer to the database cannot downgrade.

    Safe in threads and over forks without a lock (a lock held while another thread forks would stay held): two threads
    that renew the salt at once make two salts, which is harmless. ``messages_per_salt`` keeps random nonces far from
    the 2^32 messages at which they may meet.
    """

    __slots__ = ("_key", "_messages", "_opening_key", "_ring")

    def __init__(
        self, ring: KeyRing, *, messages_per_salt: int = MESSAGES_PER_SALT, cached_subkeys: int = CACHED_SUBKEYS
    ) -> None:
        self._ring = ring
        self._messages = messages_per_salt
        self._key = _SealingKey(ring.active, messages_per_salt)
        self._opening_key: Callable[[bytes], AESGCM | None] = lru_cache(cached_subkeys)(self._find)

    def seal(self, body: bytes, raw_length: int, place: bytes, *, compressed: bool) -> bytes:
        """Return the envelope of ``body`` under the active key."""
        key = self._key
        if key.forks != _Forks.count or next(key.uses, None) is None:
            key = self._key = _SealingKey(self._ring.active, self._messages)
            next(key.uses)
        nonce = os.urandom(_NONCE)
        header = _SEALED_HEADS[compressed] + raw_length.to_bytes(_LENGTH) + key.name + nonce
        return header + key.aead.encrypt(nonce, body, header + place)

    def open(self, blob: bytes, place: bytes, limit: int) -> bytes:
        """Return the uncompressed bytes, or raise `CannotOpen` for an envelope that is not exactly as it was made."""
        if blob[:_LENGTH_AT] not in _SEALED_HEADS or len(blob) < _SHORTEST_SEALED:
            _refuse()
        nonce_at = _KEY_ID_AT + 1 + blob[_KEY_ID_AT] + _SALT
        body_at = nonce_at + _NONCE
        raw_length = int.from_bytes(blob[_LENGTH_AT:_KEY_ID_AT])
        compressed = blob[_FLAGS_AT]
        _check_lengths(compressed, raw_length, len(blob) - body_at - _TAG, limit)
        key = self._opening_key(blob[_KEY_ID_AT:nonce_at])
        if key is None:
            _refuse()
        try:
            body = key.decrypt(blob[nonce_at:body_at], blob[body_at:], blob[:body_at] + place)
        except InvalidTag:
            _refuse()
        return decompress(body, raw_length) if compressed else body

    def _find(self, name: bytes) -> AESGCM | None:
        master = self._ring.get(name[1:-_SALT].decode("latin-1"))
        return None if master is None else _subkey(master, name[-_SALT:])


class ClearEnvelope:
    """Suite 0: not encrypted, for installations that switched encryption off by name. Refuses suite 1.

    The tag is an unkeyed digest. It finds accidents and misplaced rows, and stops nobody who can compute it.
    """

    __slots__ = ()

    def seal(self, body: bytes, raw_length: int, place: bytes, *, compressed: bool) -> bytes:
        """Return the envelope of ``body``, readable by anybody."""
        header = _CLEAR_HEADS[compressed] + raw_length.to_bytes(_LENGTH) + _CLEAR_NAME
        return header + body + _digest(header, body, place)

    def open(self, blob: bytes, place: bytes, limit: int) -> bytes:
        """Return the uncompressed bytes, or raise `CannotOpen` for an envelope that is not exactly as it was made."""
        body_at = _KEY_ID_AT + len(_CLEAR_NAME)
        header, body, tag = blob[:body_at], blob[body_at:-_TAG], blob[-_TAG:]
        if header[:_LENGTH_AT] not in _CLEAR_HEADS or header[_KEY_ID_AT:] != _CLEAR_NAME or len(blob) < body_at + _TAG:
            _refuse()
        raw_length = int.from_bytes(header[_LENGTH_AT:_KEY_ID_AT])
        compressed = header[_FLAGS_AT]
        _check_lengths(compressed, raw_length, len(body), limit)
        if not hmac.compare_digest(tag, _digest(header, body, place)):
            _refuse()
        return decompress(body, raw_length) if compressed else body


def _named(key_id: str) -> bytes:
    return bytes([len(key_id)]) + key_id.encode("ascii")


_SEALED_HEADS, _CLEAR_HEADS = (tuple(_MAGIC + bytes([suite, flags]) for flags in (0, _ZSTD)) for suite in (1, 0))
_CLEAR_NAME = _named(CLEAR_KEY_ID)


def _subkey(master: MasterKey, salt: bytes) -> AESGCM:
    info = b"taskqueue envelope v1\0" + master.key_id.encode("ascii")
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_LENGTH, salt=salt, info=info).derive(master.secret))


def _digest(header: bytes, body: bytes, place: bytes) -> bytes:
    return hashlib.blake2b(b"%b%b%b" % (header, place, body), digest_size=_TAG, person=b"taskqueue clear").digest()


def _check_lengths(flags: int, raw_length: int, body_length: int, limit: int) -> None:
    # Before any work is spent on the body: compressed it is shorter than it was, otherwise as long.
    fits = body_length < raw_length if flags else body_length == raw_length
    if raw_length > limit or not fits:
        _refuse()


def _claimed_key_id(blob: bytes) -> str | None:
    if blob[:_LENGTH_AT] not in _SEALED_HEADS and blob[:_LENGTH_AT] not in _CLEAR_HEADS:
        return None
    length, key_id = blob[_KEY_ID_AT : _KEY_ID_AT + 1], blob[_KEY_ID_AT + 1 :]
    key_id = key_id[: int.from_bytes(length)]
    return key_id.decode("ascii") if len(key_id) == int.from_bytes(length) and _KEY_ID.fullmatch(key_id) else None


def _refuse() -> Never:
    raise CannotOpen("this envelope cannot be opened") from None

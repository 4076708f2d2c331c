"""Encryption keys: their forms, their strength, files that hold them, and the ring of all that are loaded."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from taskqueue.errors import KeyMissing, KeyRejected

KEY_LENGTH = 32
CLEAR_KEY_ID = "clear"
_KEY_ID = re.compile(r"[a-z0-9_-]{1,32}")
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_SHORTEST_PASSPHRASE = 12
_SHORTEST_SALT = 16
_FEWEST_SYMBOLS = 8
_LONGEST_PERIOD = 16
_SCRYPT_COST = 2**17
_SCRYPT_MEMORY = 256 * 1024 * 1024
_LARGEST_FILE = 64 * 1024

_FORMS = "base64:<44 characters>, hex:<64 digits>, passphrase:<12 characters or more> or exactly 32 ASCII characters"
_GENERATE = "run `worker key:generate` for a new one"
_SAMPLES = frozenset(
    {
        "your-32-character-encryption-key",
        "your-32-char-encryption-key-here",
        "change-me-to-a-32-character-key!",
        "this-is-a-32-character-long-key!",
        "abcdefghijklmnopqrstuvwxyz123456",
        "abcdefghijklmnopqrstuvwxyz012345",
    }
)
_BARE_WARNING = (
    "the encryption key is bare text, which holds less than 256 random bits: 32 hex digits hold 128; "
    "the base64: form of `worker key:generate` holds all"
)


@dataclass(frozen=True, slots=True)
class MasterKey:
    """32 secret bytes under a name. Printing it never shows the bytes.

    ``warnings`` are sentences that the caller may show at start. Raises `KeyRejected` for a malformed id or length.
    """

    key_id: str
    secret: bytes = field(repr=False)
    warnings: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a shorter secret, which AES would accept, and an id that no envelope can carry."""
        if type(self.secret) is not bytes or len(self.secret) != KEY_LENGTH:
            raise KeyRejected(f"a master key has exactly {KEY_LENGTH} bytes")
        if not _KEY_ID.fullmatch(self.key_id) or self.key_id == CLEAR_KEY_ID:
            raise KeyRejected(
                f"{self.key_id[:40]!a} cannot name a key: expected 1 to 32 of a-z, 0-9, _ and -, and not "
                f"{CLEAR_KEY_ID!r}, which marks payloads that are not encrypted"
            )


class KeyRing:
    """The keys that are loaded: the active one seals, every one of them opens.

    Raises `KeyRejected` when two keys have the same id.
    """

    __slots__ = ("_by_id", "active")

    def __init__(self, active: MasterKey, others: Sequence[MasterKey] = ()) -> None:
        self.active = active
        self._by_id = {active.key_id: active}
        for key in others:
            if key.key_id in self._by_id:
                raise KeyRejected(f"key {key.key_id} is given twice; name every key once, the active one first")
            self._by_id[key.key_id] = key

    def __repr__(self) -> str:
        """Show the ids alone."""
        return f"KeyRing(active={self.active.key_id!r}, ids={self.ids!r})"

    def get(self, key_id: str) -> MasterKey | None:
        """Return the key of this id, or None where it is not loaded."""
        return self._by_id.get(key_id)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all loaded keys, the active one first."""
        return tuple(self._by_id)

    @property
    def keys(self) -> tuple[MasterKey, ...]:
        """All loaded keys, the active one first."""
        return tuple(self._by_id.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a careful operator should hear about these keys at start, each sentence once."""
        return tuple(dict.fromkeys(warning for key in self._by_id.values() for warning in key.warnings))

    def derive(self, label: bytes) -> bytes:
        """Return 32 secret bytes of the active key for one use, such as the HMACs of derived unique keys.

        Another label gives independent bytes. Another active key gives other bytes: what must outlive a rotation has
        to be kept, sealed, in the database.
        """
        return _subkey(self.active.secret, b"derive", label)


def generate_key() -> str:
    """Return a new random key in the form ``base64:...``."""
    return "base64:" + b64encode(secrets.token_bytes(KEY_LENGTH)).decode("ascii")


def check_value(key: MasterKey) -> bytes:
    """Return 8 bytes that tell this key from every other and nothing about it, to be stored in clear."""
    return _subkey(key.secret, b"check value", b"")[:8]


def needs_salt(text: str) -> bool:
    """Say whether ``text`` holds a passphrase, which can be read only with the salt of the installation."""
    return any(piece.startswith("passphrase:") for piece in _split(text))


def parse_key(
    text: str, *, key_id: str | None = None, production: bool = False, salt: bytes | None = None
) -> MasterKey:
    """Read one key in any of its forms: ``base64:``, ``hex:``, ``passphrase:`` or 32 ASCII characters.

    The default ``key_id`` is derived from the key: stable, and telling nothing. A passphrase needs the ``salt`` of the
    installation (16 bytes or more) and costs about 0.4 seconds and 128 MB (scrypt N=2^17, r=8, p=1): read it once, in
    the parent. Raises `KeyMissing` for an empty text and `KeyRejected` for every other that is not exactly a key;
    in ``production`` also for sample keys and keys of few symbols, which otherwise only carry a warning.
    """
    _check_text(text)
    warnings: list[str] = []
    if text.startswith("base64:"):
        secret = material = _from_base64(text.removeprefix("base64:"))
    elif text.startswith("hex:"):
        secret = material = _from_hex(text.removeprefix("hex:"))
    elif text.startswith("passphrase:"):
        material = text.removeprefix("passphrase:").encode("utf-8", "surrogatepass")
        secret = _from_passphrase(material, salt)
    else:
        material = _bare(text)
        secret = hmac.digest(b"taskqueue bare key", material, "sha256")
        warnings.append(_BARE_WARNING)
    if reason := _weakness(material):
        if production:
            raise KeyRejected(f"the encryption key {reason}, which anybody can guess; {_GENERATE}")
        warnings.append(f"the encryption key {reason}: not for production; {_GENERATE}")
    return MasterKey(_default_id(secret) if key_id is None else key_id, secret, tuple(warnings))


def parse_key_ring(text: str, *, production: bool = False, salt: bytes | None = None) -> KeyRing:
    """Read the keys of ``ENCRYPTION_KEY``, separated by commas: the first seals, all of them open.

    A passphrase in such a list cannot hold a comma. Raises as `parse_key` does, and for a key given twice.
    """
    pieces = _split(text)
    keys = []
    for position, piece in enumerate(pieces, start=1):
        try:
            keys.append(parse_key(piece, production=production, salt=salt))
        except (KeyMissing, KeyRejected) as error:
            if len(pieces) == 1:
                raise
            message = f"key {position} of {len(pieces)} (keys are separated by commas): {error}"
            raise type(error)(message) from None
    return KeyRing(keys[0], keys[1:])


def _split(text: str) -> list[str]:
    # 32 bare characters may hold commas of their own.
    if "," not in text or (len(text) == KEY_LENGTH and not text.startswith(("base64:", "hex:", "passphrase:"))):
        return [text]
    return [piece.strip(" ") for piece in text.split(",")]


def _check_text(text: str) -> None:
    if not text:
        raise KeyMissing(f"the encryption key is empty: expected {_FORMS}; {_GENERATE}")
    if text.rstrip("\r\n") != text:
        raise KeyRejected("the encryption key ends with a line break: remove it (only a key file may end with one)")
    if any(character in text for character in "\r\n\0"):
        raise KeyRejected("the encryption key holds a line break or NUL in the middle: expected one line")
    if text.strip() != text:
        raise KeyRejected("the encryption key begins or ends with a space: remove it")


def _from_base64(text: str) -> bytes:
    try:
        secret = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise KeyRejected(f"the encryption key after base64: is not base64; {_GENERATE}") from None
    if len(secret) != KEY_LENGTH:
        raise KeyRejected(
            f"the encryption key after base64: has {len(secret)} bytes, expected {KEY_LENGTH}; {_GENERATE}"
        )
    return secret


def _from_hex(text: str) -> bytes:
    if not _HEX.fullmatch(text):
        message = (
            f"the encryption key after hex: must be exactly 64 hex digits, got {len(text)} characters; {_GENERATE}"
        )
        raise KeyRejected(message)
    return bytes.fromhex(text)


def _from_passphrase(passphrase: bytes, salt: bytes | None) -> bytes:
    if len(passphrase.decode("utf-8", "surrogatepass")) < _SHORTEST_PASSPHRASE:
        raise KeyRejected(
            f"the passphrase is too short: expected at least {_SHORTEST_PASSPHRASE} characters; {_GENERATE}"
        )
    if salt is None or len(salt) < _SHORTEST_SALT:
        raise KeyRejected(
            f"a passphrase needs the salt of this installation, {_SHORTEST_SALT} bytes or more, which is kept in the "
            "database; without one use a base64: key"
        )
    return hashlib.scrypt(passphrase, salt=salt, n=_SCRYPT_COST, r=8, p=1, maxmem=_SCRYPT_MEMORY, dklen=KEY_LENGTH)


def _bare(text: str) -> bytes:
    if not (text.isascii() and text.isprintable()):
        raise KeyRejected(f"the encryption key holds other than printable ASCII characters: expected {_FORMS}")
    if len(text) != KEY_LENGTH:
        raise KeyRejected(f"the encryption key has {len(text)} characters: expected {_FORMS}; {_GENERATE}")
    return text.encode("ascii")


def _weakness(material: bytes) -> str | None:
    """Say why ``material`` is no secret, or None. 32 random bytes fail by chance less than once in 10^40."""
    if material.decode("latin-1").lower() in _SAMPLES:
        return "is a well-known sample"
    if len(set(material)) < _FEWEST_SYMBOLS:
        return f"has fewer than {_FEWEST_SYMBOLS} different symbols"
    if any(_repeats(material, period) for period in range(1, min(_LONGEST_PERIOD, len(material) // 2) + 1)):
        return "repeats itself"
    if len({(after - before) % 256 for before, after in pairwise(material)}) == 1:
        return "counts up or down"
    return None


def _repeats(material: bytes, period: int) -> bool:
    return material[period:] == material[:-period]


def _default_id(secret: bytes) -> str:
    return _subkey(secret, b"key id", b"").hex()[:8]


def _subkey(secret: bytes, use: bytes, label: bytes) -> bytes:
    return hmac.digest(secret, b"taskqueue " + use + b"\0" + label, "sha256")


def read_key_file(path: str | Path, *, production: bool = False, salt: bytes | None = None) -> KeyRing:
    """Read the keys of a file: one line in the form of ``ENCRYPTION_KEY``; the line break at its end is left out.

    Raises `KeyMissing` when there is no such file or it is empty, and `KeyRejected` when it cannot be read or holds no
    key. Rights for group or others are a warning of the ring's active key, and in ``production`` a `KeyRejected`.
    """
    text, mode = _read(Path(path))
    try:
        ring = parse_key_ring(_without_line_end(text), production=production, salt=salt)
    except (KeyMissing, KeyRejected) as error:
        raise type(error)(f"key file {path}: {error}") from None
    if not mode & 0o077:
        return ring
    open_to_all = f"key file {path} can be read by others (mode {mode:04o}); run `chmod 600 {path}`"
    if production:
        raise KeyRejected(open_to_all)
    active = replace(ring.active, warnings=(*ring.active.warnings, open_to_all))
    return KeyRing(active, ring.keys[1:])


def create_key_file(path: str | Path) -> str:
    """Write a new key into a new file of mode 0600 and return it.

    The file appears complete or not at all, on disk before this returns. Raises `FileExistsError` when there is one
    already, which is left as it is: of two processes that start together one creates it and the other reads it.
    """
    target = Path(path)
    key = generate_key()
    draft = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        _write_new(draft, key)
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:
        if not draft.exists():
            raise
        _write_new(target, key)  # a file system without hard links
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(target.parent)
    return key


def _read(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise KeyMissing(
            f"key file {path} does not exist; run `worker key:generate` and store its line there"
        ) from None
    except OSError as error:
        raise KeyRejected(f"key file {path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_FILE:
        raise KeyRejected(f"key file {path} is larger than {_LARGEST_FILE:,} bytes: expected one line with keys")
    try:
        return content.decode("utf-8"), mode
    except UnicodeDecodeError:
        raise KeyRejected(f"key file {path} is not text: expected one line with keys") from None


def _without_line_end(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def _write_new(path: Path, key: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

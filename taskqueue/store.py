"""Opening a store: the database that the settings name, its schema and keys checked before anything is done."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskqueue.clock import SYSTEM_CLOCK, Clock
from taskqueue.doorbell import Ringer
from taskqueue.drivers import database_file, migrate, open_driver
from taskqueue.drivers.base import Driver
from taskqueue.errors import KeyMissing, KeyRejected, UsageError
from taskqueue.payload import Codec, KeyRing, check_value, create_key_file, parse_key_ring, read_key_file
from taskqueue.settings import EncryptionSettings, Settings, load_settings

DEFAULT_FOLDER = "storage"
KEY_SUFFIX = ".key"
_HOMES = {
    "durability": ("database", "durability"),
    "encryption": ("encryption", "enabled"),
    "encryption_key_file": ("encryption", "key_file"),
    "environment": ("general", "environment"),
}


@dataclass(frozen=True, slots=True)
class Store:
    """An open database with the codec for what it holds.

    ``identity`` and ``salt`` are the database's own. ``notices`` are sentences that a person should see once.
    """

    driver: Driver
    codec: Codec
    ring: KeyRing | None
    url: str
    durability: str
    identity: bytes
    salt: bytes
    ringer: Ringer
    notices: tuple[str, ...] = ()

    def announce(self) -> None:
        """Tell idle nodes, here and elsewhere, that there is work: a hint, at most once in 20 ms, that never fails."""
        if self.ringer.ring():
            self.driver.announce()

    def another_driver(self, durability: str, clock: Clock = SYSTEM_CLOCK) -> Driver:
        """Return a further driver on the same database: each long-lived thread has its own."""
        return open_driver(self.url, durability=durability, clock=clock)

    def close(self) -> None:
        """Close the database."""
        self.driver.close()


def settings_of(url: str | None, key: str | None, options: Mapping[str, Any]) -> Settings:
    """Return settings from a manager's keywords, which win over environment and files."""
    groups: dict[str, dict[str, Any]] = {"database": {"url": url}, "encryption": {"key": key}, "general": {}}
    for name, value in options.items():
        if name not in _HOMES:
            raise UsageError(f"QueueManager has no setting {name!r}; it takes {', '.join(_HOMES)} and encryption_key")
        group, option = _HOMES[name]
        groups[group][option] = value
    return load_settings(keywords=groups).settings


def open_store(settings: Settings, clock: Clock = SYSTEM_CLOCK) -> Store:
    """Open the database that the settings name.

    A local database that does not exist yet is made, with its tables, outside of production. A server's tables are
    never made here. Raises `SchemaError` where the tables do not fit, `KeyMissing` or `KeyRejected` where the key does
    not: before the first job is touched, so that a wrong key stops the start and not the jobs.
    """
    database, production = settings.database, settings.general.production
    file = database_file(database.url)
    if file is not None and str(file.parent) == DEFAULT_FOLDER:
        file.parent.mkdir(mode=0o700, exist_ok=True)
    driver = open_driver(database.url, durability=database.durability, clock=clock)
    try:
        if driver.capabilities.remote or production:
            migrate.check(driver)
        else:
            migrate.check_or_create(driver)
        identity, salt = driver.installation()
        ring, notices = _open_keys(driver, settings.encryption, file, salt, production=production)
    except BaseException:
        driver.close()
        raise
    ringer = Ringer(identity, clock)
    return Store(driver, Codec(ring), ring, database.url, database.durability, identity, salt, ringer, notices)


def _open_keys(
    driver: Driver, encryption: EncryptionSettings, file: Path | None, salt: bytes, *, production: bool
) -> tuple[KeyRing | None, tuple[str, ...]]:
    if not encryption.enabled:
        return None, ("encryption is off: payloads are stored in clear",)
    notices: tuple[str, ...] = ()
    if encryption.key is not None:
        ring = parse_key_ring(encryption.key, production=production, salt=salt)
    elif encryption.key_file is not None:
        ring = read_key_file(encryption.key_file, production=production, salt=salt)
    else:
        ring, notices = _default_key(driver, file, salt, production=production)
    _check_keys(driver, ring)
    return ring, (*notices, *ring.warnings)


def _default_key(
    driver: Driver, file: Path | None, salt: bytes, *, production: bool
) -> tuple[KeyRing, tuple[str, ...]]:
    """Read the key file beside a local database, or make it if nothing has been sealed there yet."""
    if file is None:
        raise KeyMissing(
            "no encryption key: set ENCRYPTION_KEY_FILE or ENCRYPTION_KEY to what `worker key:generate` prints"
        )
    path = file.with_name(file.name + KEY_SUFFIX)
    notices: tuple[str, ...] = ()
    if not path.exists():
        known = driver.keys()
        if known:
            raise KeyMissing(
                f"the payloads in {file} were sealed with key {known[0].key_id}, and {path} is missing: "
                "put that file back, or set ENCRYPTION_KEY_FILE or ENCRYPTION_KEY"
            )
        with contextlib.suppress(FileExistsError):  # Another process may start at the same moment and make it.
            create_key_file(path)
            notices = (f"made an encryption key in {path}; keep a copy of it apart from the database",)
    return read_key_file(path, production=production, salt=salt), notices


def _check_keys(driver: Driver, ring: KeyRing) -> None:
    """Compare the ring with the keys that this database knows; note its active key where it is new."""
    rows = driver.keys()
    known = {row.key_id: row for row in rows}
    for key in ring.keys:
        row = known.get(key.key_id)
        if row is not None and row.check_value != check_value(key):
            raise KeyRejected(f"the key given as {key.key_id} is not the one that sealed the payloads here: check it")
    if known and not known.keys() & set(ring.ids):
        names = ", ".join(sorted(known))
        raise KeyRejected(
            f"the payloads here were sealed with key {names}, and the key given is {ring.active.key_id}: give the "
            "right one, or to change keys the new one followed by a comma and the old one"
        )
    if ring.active.key_id not in known:
        driver.add_key(ring.active.key_id, check_value(ring.active))

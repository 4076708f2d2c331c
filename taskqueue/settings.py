"""Every setting, declared once: name, default, unit, bounds, environment names and help.

Flags, ``--help``, configuration files, ``config:show`` and ``docs/configuration.md`` are made from these declarations.
The names of databases that users type stand here, and their differences in the drivers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from taskqueue.configuration import (
    ENV_FILE,
    OWN_FILE,
    PROJECT_FILE,
    Place,
    read_env_file,
    read_environment,
    read_own_file,
    read_project_file,
    readable_by_others,
)
from taskqueue.database_url import (
    FILE_SCHEME,
    SCHEMES,
    SOCKET_PARAMETERS,
    SSL_SCHEME,
    STARTS,
    mask_url,
    parse_database_url,
)
from taskqueue.errors import ConfigurationError, SettingsConflict, UsageError, did_you_mean
from taskqueue.options import NO_FLAG, Layer, Resolved, flag_layer, option, options_of, resolve
from taskqueue.worker_settings import SchedulerSettings, ServerSettings, WorkerSettings

__all__ = [
    "GROUPS",
    "SCHEMES",
    "DatabaseSettings",
    "EncryptionSettings",
    "GeneralSettings",
    "LoadedSettings",
    "SchedulerSettings",
    "ServerSettings",
    "SettingRow",
    "Settings",
    "WorkerSettings",
    "load_settings",
    "mask_url",
    "parse_database_url",
]

PREFIXES = ("DATABASE_", "DB_", "ENCRYPTION_", "WORKER_", "SCHEDULER_", "SERVER_", "TASKQUEUE_")
"""A variable that starts so and is no setting is worth a warning."""


def _parse_path(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not str(value) or "?" in str(value) or "\0" in str(value):
        raise ValueError("not a path")
    return str(Path(value).expanduser())


def _parse_level(value: Any) -> str:
    level = value.strip().lower() if isinstance(value, str) else ""
    if level not in {"debug", "info", "warning", "warn", "error"}:
        raise ValueError("not a level")
    return "warning" if level == "warn" else level


_ENVIRONMENTS = {
    "dev": "development",
    "local": "development",
    "test": "testing",
    "stage": "staging",
    "prod": "production",
}


def _parse_environment(value: Any) -> str:
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in _ENVIRONMENTS and word not in _ENVIRONMENTS.values():
        raise ValueError("not an environment")
    return _ENVIRONMENTS.get(word, word)


@dataclass(frozen=True, slots=True)
class GeneralSettings:
    """What concerns every command."""

    environment: str = option(
        "development",
        help="Where this runs; in production sample keys and files with secrets that others can read are refused.",
        choices=("development", "testing", "staging", "production"),
        parse=_parse_environment,
        env=("ENVIRONMENT", "APP_ENV"),
        flag=NO_FLAG,
    )
    log_level: str = option(
        "info",
        help="The least important message that is logged.",
        choices=("debug", "info", "warning", "error"),
        parse=_parse_level,
        env=("LOG_LEVEL",),
    )
    log_format: str = option(
        "text", help="Lines for people, or one JSON object a line.", choices=("text", "json"), env=("LOG_FORMAT",)
    )

    @property
    def production(self) -> bool:
        """Say whether warnings about keys and rights are errors."""
        return self.environment == "production"


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the jobs are stored: one URL, or its parts."""

    given_url: str | None = option(
        None,
        name="url",
        help="The database as one URL, instead of the parts below; serverVersion and charset in it are ignored.",
        parse=parse_database_url,
        expects=f"a URL that starts with one of {STARTS}",
        env=("DATABASE_URL",),
        secret=True,
        mask=mask_url,
        rivals=("connection", "path"),
        metavar="URL",
    )
    connection: str = option(
        FILE_SCHEME,
        help="The kind of database.",
        choices=tuple(SCHEMES),
        env=("DB_CONNECTION",),
        flag=NO_FLAG,
        rivals=("url",),
    )
    path: str = option(
        "storage/queue.db",
        help="The file of an SQLite database, or :memory:; relative to the working directory.",
        parse=_parse_path,
        expects="the path of a file",
        env=("DB_PATH",),
        flag=NO_FLAG,
        rivals=("url",),
    )
    host: str = option(
        "localhost",
        help="The host of a server database, or the absolute path of its socket.",
        minimum=1,
        env=("DB_HOST",),
        flag=NO_FLAG,
    )
    port: int | None = option(
        None,
        help="Its port; the server's usual one unless given.",
        minimum=1,
        maximum=65535,
        env=("DB_PORT",),
        flag=NO_FLAG,
    )
    database: str | None = option(
        None, help="The database on the server.", minimum=1, env=("DB_DATABASE", "DB_NAME"), flag=NO_FLAG
    )
    username: str | None = option(None, help="Who connects.", minimum=1, env=("DB_USERNAME", "DB_USER"), flag=NO_FLAG)
    password: str | None = option(
        None, help="The password of the user.", env=("DB_PASSWORD",), secret=True, allow_empty=True
    )
    sslmode: str | None = option(
        None,
        help="How a PostgreSQL connection is encrypted and the server checked.",
        choices=("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        env=("DB_SSLMODE",),
        flag=NO_FLAG,
    )
    durability: str = option(
        "full",
        help="What a push to SQLite survives: full also power loss, normal the death of processes. Servers: full.",
        choices=("full", "normal"),
        env=("DB_DURABILITY",),
        flag=NO_FLAG,
    )
    node_durability: str = option(
        "normal",
        help="The same for a node's claims and acknowledgements on SQLite; a lost one costs a second run, never a job.",
        choices=("full", "normal"),
        env=("DB_NODE_DURABILITY",),
        flag=NO_FLAG,
    )
    reserve: int = option(
        8 * 1024**2,
        help="Space that nodes set aside beside an SQLite database, for what runs when its disk is full; 0 for none.",
        unit="bytes",
        minimum=0,
        env=("SQLITE_RESERVE",),
        flag=NO_FLAG,
    )

    def __post_init__(self) -> None:
        """Refuse parts from which no URL can be made."""
        scheme = SCHEMES[self.connection]
        if self.given_url is not None or scheme == FILE_SCHEME:
            return
        if self.database is None:
            raise SettingsConflict(
                f"DB_CONNECTION={self.connection} needs the name of the database: set DB_DATABASE",
                "connection",
            )
        if self.sslmode is not None and scheme != SSL_SCHEME:
            raise SettingsConflict(
                f"DB_SSLMODE does not apply to {self.connection}: put its TLS parameters into DATABASE_URL", "sslmode"
            )

    @property
    def url(self) -> str:
        """Return one URL, as given or made of the parts; it holds the password."""
        if self.given_url is not None:
            return self.given_url
        scheme = SCHEMES[self.connection]
        return f"{scheme}:///{self.path}" if scheme == FILE_SCHEME else self._server_url(scheme)

    @property
    def masked_url(self) -> str:
        """Return the URL as it may be shown: ``user:***@host``."""
        return mask_url(self.url)

    def _server_url(self, scheme: str) -> str:
        password = f":{quote(self.password, safe='')}" if self.password else ""
        user = f"{quote(self.username or '', safe='')}{password}@" if self.username or password else ""
        port = f":{self.port}" if self.port else ""
        parameters = {"sslmode": self.sslmode} if self.sslmode else {}
        host = f"[{self.host}]" if ":" in self.host else self.host
        if host.startswith("/"):
            parameters[SOCKET_PARAMETERS[scheme]] = host
            host = "" if scheme == SSL_SCHEME else "localhost"
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in parameters.items())
        return f"{scheme}://{user}{host}{port}/{quote(self.database or '', safe='')}{'?' if query else ''}{query}"


@dataclass(frozen=True, slots=True)
class EncryptionSettings:
    """How payloads are sealed. A key in a file keeps it out of the process list, where variables can be read."""

    enabled: bool = option(
        True,
        help="Whether payloads, results and errors are sealed before they are stored.",
        env=("ENCRYPTION",),
        flag=NO_FLAG,
    )
    key: str | None = option(
        None,
        help="The key, as key:generate prints it.",
        minimum=1,
        env=("ENCRYPTION_KEY",),
        secret=True,
        allow_empty=True,
        hint="run worker key:generate",
        rivals=("key_file",),
    )
    key_file: str | None = option(
        None,
        help="A file with the key, better than the key itself.",
        parse=_parse_path,
        expects="the path of a file",
        env=("ENCRYPTION_KEY_FILE",),
        flag=NO_FLAG,
        rivals=("key",),
        metavar="PATH",
    )

    def __post_init__(self) -> None:
        """Refuse two keys: nobody could say which one seals."""
        if self.key is not None and self.key_file is not None:
            raise SettingsConflict("set ENCRYPTION_KEY or ENCRYPTION_KEY_FILE, not both", "key", "key_file")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, one field for each group."""

    general: GeneralSettings = field(default_factory=GeneralSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    encryption: EncryptionSettings = field(default_factory=EncryptionSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    server: ServerSettings = field(default_factory=ServerSettings)


GROUPS: Mapping[str, type] = {
    "general": GeneralSettings,
    "database": DatabaseSettings,
    "encryption": EncryptionSettings,
    "worker": WorkerSettings,
    "scheduler": SchedulerSettings,
    "server": ServerSettings,
}
"""The groups by name, which is also that of their table in a file."""


class SettingRow(NamedTuple):
    """One line of ``config:show``."""

    group: str
    option: str
    value: Any
    """Secrets are masked."""
    source: str


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, where each came from, and what the user should hear about."""

    settings: Settings
    sources: Mapping[str, Mapping[str, str]]
    """Group and option to source."""
    warnings: tuple[str, ...] = ()

    def rows(self) -> Iterator[SettingRow]:
        """Yield every setting with its source, secrets masked."""
        for group, cls in GROUPS.items():
            values = getattr(self.settings, group)
            for declared in options_of(cls):
                value = declared.masked(getattr(values, declared.attribute))
                yield SettingRow(group, declared.name, value, self.sources[group][declared.name])


Given = Mapping[str, Mapping[str, Any]]


def load_settings(
    flags: Given | None = None,
    *,
    keywords: Given | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> LoadedSettings:
    """Load all settings: flags, then environment, ``.env``, ``taskqueue.toml``, ``pyproject.toml``, defaults.

    ``flags`` and ``keywords`` map a group to its given options; None is "not given". Both are stronger than any file,
    and differ in the error: `UsageError` (exit code 2) for a flag, `InvalidSetting` (78) for anything else. Files are
    looked for in ``directory``, the working directory unless given. Raises `ConfigurationError` for a file that cannot
    be used, an unknown key in our own files, and in production for a file with secrets that other users can read.
    """
    places = _read_places(os.environ if environ is None else environ, directory or Path.cwd())
    values: dict[str, Any] = {}
    sources: dict[str, Mapping[str, str]] = {}
    _refuse_unknown_groups(flags, keywords)
    for group, cls in GROUPS.items():
        given = [flag_layer(cls, (flags or {}).get(group, {})), Layer("keyword", (keywords or {}).get(group, {}))]
        found: Resolved[Any] = resolve(cls, given + [place.layers[group] for place in places if group in place.layers])
        values[group], sources[group] = found.value, found.sources
    settings = Settings(**values)
    warnings = [warning for place in places for warning in place.warnings]
    return LoadedSettings(settings, sources, (*warnings, *_rights(places, production=settings.general.production)))


def _read_places(environ: Mapping[str, str], directory: Path) -> tuple[Place, ...]:
    return (
        read_environment(GROUPS, environ, PREFIXES),
        read_env_file(GROUPS, directory / ENV_FILE, PREFIXES),
        read_own_file(GROUPS, directory / OWN_FILE),
        read_project_file(GROUPS, directory / PROJECT_FILE),
    )


def _refuse_unknown_groups(*layers: Given | None) -> None:
    for layer in layers:
        for group in layer or ():
            if group not in GROUPS:
                raise UsageError(f"there is no group of settings {group!r}{did_you_mean(group, GROUPS)}")


def _rights(places: Iterable[Place], *, production: bool) -> Iterator[str]:
    for place in places:
        found = readable_by_others(place)
        if found is not None and production:
            raise ConfigurationError(found)
        if found is not None:
            yield found

"""The databases: one contract (`base.Driver`), one module for each database, loaded when a URL names it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from taskqueue.clock import SYSTEM_CLOCK, Clock
from taskqueue.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from taskqueue.drivers.base import Driver

_MODULES = {
    "sqlite": "sqlite",
    "mysql": "mysql",
    "mariadb": "mysql",
    "postgresql": "postgresql",
    "postgres": "postgresql",
}
"""The module for each scheme of a URL: a driver is one module and one line here."""

_LIBRARIES = {"postgresql": ("psycopg", "postgres"), "mysql": ("pymysql", "mysql")}
"""The library that a module connects by, and the extra of this package that installs it."""

_FILES = ("sqlite",)
"""Schemes of databases that are a file."""

_DURABILITIES = ("full", "normal")


def open_driver(url: str, *, durability: str = "full", clock: Clock = SYSTEM_CLOCK) -> Driver:
    """Return the driver for a database URL, such as ``sqlite:///queue.db`` or ``:memory:``. Connects to nothing.

    ``durability`` is ``full`` (what is committed survives a power cut) or ``normal`` (it survives the death of any
    process; for work that would simply be done again). Raises `ConfigurationError` for a URL that no driver knows.
    """
    if durability not in _DURABILITIES:
        raise ConfigurationError(f"durability must be one of {', '.join(_DURABILITIES)}, got {durability!r}")
    text = "sqlite://" if url == ":memory:" else url
    scheme, separator, _ = text.partition("://")
    scheme = scheme.partition("+")[0].lower() if separator else ""
    if scheme not in _MODULES:
        raise ConfigurationError(_unknown(scheme))
    driver: Driver = _module(scheme).connect(text, durability, clock)
    return driver


def _module(scheme: str) -> ModuleType:
    """Import the module for a scheme, and with it the library that connects."""
    try:
        return import_module(f"taskqueue.drivers.{_MODULES[scheme]}")
    except ImportError as missing:
        library, extra = _LIBRARIES.get(_MODULES[scheme], ("", ""))
        if missing.name not in (library, None):  # It has no name where the library lacks a part that is not Python.
            raise
        raise ConfigurationError(
            f"a {scheme} URL needs the package {library}, which cannot be imported: pip install 'taskqueue[{extra}]'"
        ) from missing


def database_file(url: str) -> Path | None:
    """Return the file in which a URL keeps its database, as it is written there, or None for memory and servers."""
    scheme, _, _ = url.partition("://")
    if scheme.partition("+")[0].lower() not in _FILES:
        return None
    from taskqueue.drivers.sqlite_files import path_in

    return path_in(url)


def settled_url(url: str) -> str:
    """Return a URL that leads to the same database after the current folder has changed."""
    file = database_file(url)
    if file is None or file.is_absolute():
        return url
    return f"{url.partition('://')[0]}:///{file.absolute()}"


def _unknown(scheme: str) -> str:
    # Only the scheme is repeated: the rest of a URL may hold a password.
    given = f"unknown scheme {scheme!r}{did_you_mean(scheme, _MODULES)}" if scheme else "no scheme"
    return f"a database URL must start with {' or '.join(f'{name}://' for name in _MODULES)}, got {given}"

"""URLs of databases as users write them: which ones there are, what of one is ours, and how one may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from taskqueue.conversion import Expected

SCHEMES: Mapping[str, str] = {
    "sqlite": "sqlite",
    "mysql": "mysql",
    "mariadb": "mariadb",
    "pgsql": "postgresql",
    "postgresql": "postgresql",
    "postgres": "postgresql",
}
"""What users call a database, in ``DB_CONNECTION`` or before ``://``, and the scheme that the drivers know it by."""

STARTS = ", ".join(f"{each}://" for each in SCHEMES)
FILE_SCHEME = "sqlite"
SSL_SCHEME = "postgresql"
SOCKET_PARAMETERS = {"postgresql": "host", "mysql": "unix_socket", "mariadb": "unix_socket"}
_LIBRARIES: Mapping[str, frozenset[str]] = {
    "sqlite": frozenset({"pysqlite", "aiosqlite"}),
    "postgresql": frozenset({"psycopg", "psycopg_async", "psycopg2", "asyncpg", "pg8000"}),
    "mysql": frozenset({"pymysql", "mysqldb", "mysqlconnector", "aiomysql", "asyncmy"}),
    "mariadb": frozenset({"pymysql", "mysqldb", "mariadbconnector", "aiomysql", "asyncmy"}),
}
"""Libraries that an application's own URL may name after a ``+``; the drivers use one of their own choice."""

_FOREIGN_PARAMETERS = frozenset({"serverVersion", "charset"})
_ADDRESS = re.compile(r"([^:@/]*(:[^@]*)?@)?(\[[0-9A-Fa-f:.]+\]|[^:@/\[\]]*)(:[0-9]{1,5})?(/[^/@]*)?")
_PASSWORD_PARAMETER = re.compile(r"((?:^|&)[^=&]*(?:password|passwd|secret)[^=&]*=)[^&]*", re.IGNORECASE)


def mask_url(url: str) -> str:
    """Return ``url`` with its password, and any in its parameters, as ``***``."""
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    address, question, parameters = place.partition("?")
    shown_user = f"{name}{colon and ':***'}{at}"
    shown_parameters = _PASSWORD_PARAMETER.sub(r"\1***", parameters)
    return f"{scheme}{separator}{shown_user}{address}{question}{shown_parameters}"


def parse_database_url(value: Any) -> str:
    """Return a database URL with the scheme that the drivers know, without what is meant for other programs.

    That is the library after a ``+`` and the parameters ``serverVersion`` and ``charset``: applications share one URL.
    Raises `Expected`, which repeats nothing that could be a part of the password.
    """
    text = value.strip() if isinstance(value, str) else ""
    scheme, separator, rest = text.partition("://")
    name, plus, library = scheme.lower().partition("+")
    if not separator or name not in SCHEMES:
        came = f", not with {name}://" if separator and name.isalpha() else ""
        raise Expected(f"a URL that starts with one of {STARTS}{came}")
    known = SCHEMES[name]
    if plus and library not in _LIBRARIES[known]:
        raise Expected(f"a URL that starts with {name}://: which library connects is not for the URL to say")
    address, _, parameters = rest.partition("?")
    if known != FILE_SCHEME and not _ADDRESS.fullmatch(address):
        raise Expected(
            f"a URL as {name}://USER:PASSWORD@HOST:PORT/DATABASE, in whose user and password the signs @ : / ? % are"
            " written as %40 %3A %2F %3F %25"
        )
    given = [each for each in parameters.split("&") if each]
    if known != FILE_SCHEME and not address.partition("/")[2] and not any(map(_names_database, given)):
        raise Expected(f"a URL that names a database, as {name}://USER:PASSWORD@HOST:PORT/DATABASE")
    kept = "&".join(each for each in given if each.partition("=")[0] not in _FOREIGN_PARAMETERS)
    return f"{known}://{address}{'?' if kept else ''}{kept}"


def _names_database(parameter: str) -> bool:
    return parameter.partition("=")[0] in ("dbname", "service")

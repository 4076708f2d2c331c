"""The kinds of databases that can be measured, the one that needs no server first."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.databases.kind import Kind
from benchmarks.databases.mysql import MySQL
from benchmarks.databases.postgresql import PostgreSQL
from benchmarks.databases.sqlite import SQLite

KINDS: Mapping[str, Kind] = {each.name: each for each in (SQLite(), PostgreSQL(), MySQL())}

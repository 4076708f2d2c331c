"""Values in the form in which Python's ``sqlite3`` binds them fastest.

The module asks for an adapter for every value that is not exactly an int, float, str or bytearray, and looks for one in
three places before it binds bytes or None as they are: 0.9 to 1.7 microseconds for each, in a job's row of nine of
them (measured with CPython 3.11; the code is the same up to 3.14). A bytearray is bound at once, and becomes the same
blob. For None an adapter that returns None is found in the first place; it changes nothing for anybody else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

_nothing: dict[None, None] = {}
sqlite3.register_adapter(type(None), _nothing.get)


def bindable(values: Iterable[Any]) -> list[Any]:
    """Return ``values`` with bytes as bytearrays."""
    return [bytearray(value) if type(value) is bytes else value for value in values]

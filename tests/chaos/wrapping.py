"""How a function of the product is replaced in a process of the harness, and the product itself left alone."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from taskqueue import drivers as drivers_package
from taskqueue.drivers.sql_nodes import SQLNodes

SCHEME = "CHAOS_SCHEME"
"""Environment variable: the scheme of the database's URL."""


def around(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Have ``wrapper(inner, *arguments)`` called in the place of ``owner.name``, which has to be defined there."""
    inner = vars(owner).get(name)
    if inner is None:
        raise LookupError(f"{owner!r} has no {name} any more: wrap what has taken its place")

    @functools.wraps(inner)
    def replaced(*values: Any, **named: Any) -> Any:
        return wrapper(inner, *values, **named)

    setattr(owner, name, replaced)


def drivers() -> list[Any]:
    """Return the classes of the driver in use and those that it is made of. Others are not loaded: that takes 0.2 s."""
    drivers_package._module(os.environ[SCHEME])
    found: list[Any] = [SQLNodes]
    for each in found:
        found += each.__subclasses__()
    return found


def around_verb(name: str, wrapper: Callable[..., Any]) -> None:
    """Have ``wrapper`` called in the place of a verb, wherever the driver in use defines it."""
    owners = [each for each in drivers() if name in vars(each)]
    if not owners:
        raise LookupError(f"no driver has the verb {name} any more: wrap what has taken its place")
    for each in owners:
        around(each, name, wrapper)

"""Name <-> job class. A class name that comes from a row is looked up here and never imported.

The registry is filled by importing the modules that the configuration names; defining a subclass of `Job` enters it.
An unknown name leaves its job waiting, for a node that knows the class (a deploy in progress), and imports nothing.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from taskqueue.errors import ConfigurationError, ImportFailed, UnknownJobClass, did_you_mean


class Registry:
    """Job classes by name, by old names (aliases) and, where only one class has it, by bare class name."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Any]] = {}
        self._aliases: dict[str, str] = {}
        self._bare: dict[str, set[str]] = {}

    def add(self, cls: type[Any], name: str, aliases: Iterable[str] = ()) -> None:
        """Enter ``cls`` under ``name``. The same class defined again replaces itself (a module was reloaded).

        Raises `ConfigurationError` where another class has the name or an alias.
        """
        for each in (name, *aliases):
            taken = self._classes.get(self._aliases.get(each, each))
            if taken is not None and _home(taken) != _home(cls):
                raise ConfigurationError(
                    f"two job classes are named {each!r}: {_home(taken)} and {_home(cls)}; give one another name="
                )
        self._classes[name] = cls
        self._aliases.update(dict.fromkeys(aliases, name))
        self._bare.setdefault(cls.__name__, set()).add(name)

    def find(self, name: str) -> type[Any] | None:
        """Return the class of this name, alias or unique bare name, or None."""
        cls = self._classes.get(name)
        if cls is not None:
            return cls
        full = self._aliases.get(name)
        if full is None:
            bare = self._bare.get(name, ())
            full = next(iter(bare)) if len(bare) == 1 else None
        return self._classes.get(full) if full is not None else None

    def get(self, name: str) -> type[Any]:
        """Return the class of this name, or raise `UnknownJobClass` with the nearest names."""
        cls = self.find(name)
        if cls is None:
            known = sorted({*self._classes, *self._bare})
            listed = f"; known are {', '.join(sorted(self._classes)[:10])}" if self._classes else ""
            raise UnknownJobClass(
                f"no job class {name[:120]!r} is known here: name the module that defines it with --import"
                f"{did_you_mean(name, known) or listed}"
            )
        return cls

    def names(self) -> list[str]:
        """Return every name that `find` answers to and that a stored job may carry."""
        return sorted({*self._classes, *self._aliases, *(bare for bare, full in self._bare.items() if len(full) == 1)})

    def __iter__(self) -> Iterator[str]:
        """Go over the full names in alphabetical order."""
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        """Return how many classes there are."""
        return len(self._classes)


READY_MADE = "taskqueue.jobs"
"""The module of the jobs that come with taskqueue, which every node knows."""

REGISTRY = Registry()
"""The registry that subclasses of `Job` enter by themselves."""


def module_name(cls: Any) -> str:
    """Return the module that a worker imports to get ``cls``: for a script that was started, its file's stem."""
    module: str = cls.__module__
    if module != "__main__":
        return module
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file).stem if file else "__main__"


def import_jobs(modules: Iterable[str], directory: Path | None = None) -> list[str]:
    """Import the modules that define job classes, and return their names.

    With none given, a ``jobs.py`` or ``jobs/`` in ``directory`` is imported where there is one. Raises `ImportFailed`,
    naming the module, the error and the line it came from.
    """
    names = list(modules)
    where = directory if directory is not None else Path.cwd()
    if not names and ((where / "jobs.py").is_file() or (where / "jobs" / "__init__.py").is_file()):
        names = ["jobs"]
    if names and str(where) not in sys.path:
        sys.path.insert(0, str(where))
    for name in (*names, READY_MADE):
        _import(name)
    return names


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ImportFailed(
                f"cannot import {name!r}: there is no such module here; run in the folder that holds it, or install it"
            ) from error
        raise ImportFailed(_failure(name, error)) from error
    except (Exception, SystemExit) as error:  # A script without a main guard leaves the program when it is imported.
        raise ImportFailed(_failure(name, error)) from error


def _failure(name: str, error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return f"cannot import {name!r}: {type(error).__name__}: {error}{place}; correct the module and start again"


def _home(cls: type[Any]) -> str:
    return f"{module_name(cls)}.{cls.__qualname__}"

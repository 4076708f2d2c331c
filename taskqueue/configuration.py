"""The places that may give settings (environment, ``.env``, TOML files), each read into layers of options.

A place knows nothing of single settings: it is told the groups, a name and a dataclass of options each.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv.parser import Binding, parse_stream

from taskqueue.errors import ConfigurationError, UnknownSetting, did_you_mean
from taskqueue.options import Layer, Option, option_table, options_of

Groups = Mapping[str, type]

ENV_FILE = ".env"
OWN_FILE = "taskqueue.toml"
PROJECT_FILE = "pyproject.toml"

_NO_GROUP = "general"
# Set by Kubernetes for a service that happens to be called db, worker or server, or by our own tests: no mistypings.
_NOT_MISTYPED = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_[0-9]+_(TCP|UDP)|^TASKQUEUE_TEST_")


@dataclass(frozen=True, slots=True)
class Place:
    """What one place gives: a layer for each group, what it wants to warn of, and the file it is, if it is one."""

    layers: Mapping[str, Layer]
    warnings: tuple[str, ...] = ()
    path: Path | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """The names under which this place holds secrets."""


def read_environment(
    groups: Groups, environ: Mapping[str, str], prefixes: tuple[str, ...] = (), source: str = "environment"
) -> Place:
    """Read the variables that options name; of an option's names the first one present counts.

    An empty variable counts as not given, unless the option says that an empty text is a value. A variable that starts
    with one of ``prefixes`` and is no option's becomes a warning.
    """
    layers = {group: _variables(options_of(cls), environ, source) for group, cls in groups.items()}
    return Place(layers, tuple(_unknown_variables(groups, environ, prefixes, source)), secrets=_secrets(groups, layers))


def read_env_file(groups: Groups, path: Path, prefixes: tuple[str, ...] = ()) -> Place:
    """Read a ``.env`` file; one that does not exist gives nothing.

    Raises `ConfigurationError` with the line's number, never its value, for a line that is not ``NAME=value``.
    """
    text = _read(path)
    if text is None:
        return Place({})
    variables = parse_env_text(text, path.name)
    place = read_environment(groups, variables, prefixes, path.name)
    return Place(place.layers, place.warnings, path, place.secrets)


def parse_env_text(text: str, name: str = ENV_FILE) -> dict[str, str]:
    """Return the variables that the text of a ``.env`` file sets; of two lines for one name the later wins.

    Understood: a byte order mark, CRLF, ``export NAME=value``, single and double quotes (the latter with backslash
    escapes and over several lines), comments on their own line or after a blank. ``$NAME`` is not expanded.
    """
    variables = {}
    for binding in parse_stream(StringIO(text, newline="")):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigurationError(f"{name} line {_line(binding)}: expected NAME=value or a # comment")
        if binding.key is not None and binding.value is not None:
            variables[binding.key] = binding.value
    return variables


def read_own_file(groups: Groups, path: Path) -> Place:
    """Read ``taskqueue.toml``; one that does not exist gives nothing. Raises `ConfigurationError`."""
    document = _read_toml(path)
    return Place({}) if document is None else _tables(groups, document, path, "")


def read_project_file(groups: Groups, path: Path) -> Place:
    """Read ``[tool.taskqueue]`` of ``pyproject.toml``; one that does not exist gives nothing."""
    document = _read_toml(path) or {}
    tools = document.get("tool")
    table = tools.get("taskqueue") if isinstance(tools, dict) else None
    if table is None:
        return Place({})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path.name}: tool.taskqueue must be a table of settings")
    return _tables(groups, table, path, "tool.taskqueue.")


def readable_by_others(place: Place) -> str | None:
    """Say in one sentence that a file with secrets can be read by other users; None where it cannot."""
    if place.path is None or not place.secrets or os.name != "posix":
        return None
    mode = place.path.stat().st_mode & 0o777
    if not mode & 0o077:
        return None
    held = ", ".join(place.secrets)
    name = place.path.name
    return f"{name} holds {held} and other users can read it (mode {mode:04o}): run chmod 600 {name}"


def _variables(options: Sequence[Option], environ: Mapping[str, str], source: str) -> Layer:
    given, carriers = {}, {}
    for option in options:
        for name in option.env:
            value = environ.get(name)
            if value is not None and (value != "" or option.allow_empty):
                given[option.name], carriers[option.name] = value, name
                break
    return Layer(source, given, carriers=carriers)


def _unknown_variables(
    groups: Groups, environ: Mapping[str, str], prefixes: tuple[str, ...], source: str
) -> Iterator[str]:
    known = {name for cls in groups.values() for option in options_of(cls) for name in option.env}
    for name in environ:
        if name.startswith(prefixes) and name not in known and not _NOT_MISTYPED.search(name):
            yield f"{source}: {name} is no setting and was ignored{did_you_mean(name, known)}"


def _secrets(groups: Groups, layers: Mapping[str, Layer]) -> tuple[str, ...]:
    held = []
    for group, layer in layers.items():
        for name, value in layer.given.items():
            if option_table(groups[group])[name].hides(value):
                held.append(layer.carriers[name])
    return tuple(held)


def _tables(groups: Groups, document: Mapping[str, Any], path: Path, prefix: str) -> Place:
    """Read one table for each group; options of the general group stand outside of any table."""
    loose = {name: value for name, value in document.items() if name not in groups or name == _NO_GROUP}
    layers = {_NO_GROUP: _table(groups, _NO_GROUP, loose, path, prefix)}
    for group in groups:
        if group in document and group != _NO_GROUP:
            if not isinstance(document[group], dict):
                raise UnknownSetting(f"{path.name}: {prefix}{group} must be a table: write [{prefix}{group}]")
            layers[group] = _table(groups, group, document[group], path, f"{prefix}{group}.")
    return Place(layers, path=path, secrets=_secrets(groups, layers))


def _table(groups: Groups, group: str, given: Mapping[str, Any], path: Path, prefix: str) -> Layer:
    known = option_table(groups[group])
    for name in given:
        if name not in known:
            raise UnknownSetting(_unknown_key(groups, group, name, path, prefix))
    return Layer(path.name, given, carriers={name: f"{prefix}{name}" for name in given})


def _unknown_key(groups: Groups, group: str, name: str, path: Path, prefix: str) -> str:
    homes = [each for each, cls in groups.items() if name in option_table(cls)]
    if homes:
        home = "outside of any table" if homes[0] == _NO_GROUP else f"in the table {homes[0]}"
        return f"{path.name}: there is no setting {prefix}{name}; {name} belongs {home}"
    candidates = [*option_table(groups[group]), *(groups if group == _NO_GROUP else ())]
    return f"{path.name}: there is no setting {prefix}{name}{did_you_mean(name, candidates)}"


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path.name} line {line}: expected text in UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error.strerror}") from error


def _read_toml(path: Path) -> dict[str, Any] | None:
    text = _read(path)
    if text is None:
        return None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path.name} is not valid TOML: {error}") from None


def _line(binding: Binding) -> int:
    """Return the number of the line itself: the parser counts from the blank lines before it."""
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(re.findall(r"\r\n|\n|\r", blank))

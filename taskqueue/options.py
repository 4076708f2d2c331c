"""Options are declared once; flags, environment, files, keyword arguments, help and the docs page follow from there.

::

    @dataclass(frozen=True, slots=True)
    class WorkerSettings:
        workers: int = option(1, help="Worker processes.", minimum=1, maximum=256, env=("WORKERS",))

    resolve(WorkerSettings, [Layer("keyword", {"workers": 4})]).value.workers

The type comes from the annotation, the bounds from the declaration. In every layer None means "not given"; 0, False and
an empty text are values. No database, no web and no third-party import here: every push of a job passes this module.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Generic, TypeVar

from taskqueue.conversion import Expected, Rule, converter, expectation, value_text
from taskqueue.errors import (
    InvalidOption,
    InvalidSetting,
    SettingsConflict,
    TaskQueueError,
    UnknownSetting,
    UsageError,
    did_you_mean,
)
from taskqueue.quantities import with_unit

T = TypeVar("T")
Parser = Callable[[Any], Any]

NO_FLAG = ""
"""Pass as ``flag`` for an option that no command line may carry, such as a key."""

DEFAULT = "default"
"""The source of a value that no layer gives."""

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Option:
    """One option as it was declared, completed with its name and type from the dataclass that holds it."""

    name: str
    """The name that users write, in keyword arguments and in files."""
    default: Any
    help: str
    attribute: str = ""
    """The dataclass field that holds the value."""
    type: Any = str
    item: Any = None
    """The type of one element where ``type`` is tuple."""
    nullable: bool = False
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    """The names in the environment; the first is the documented one, the others are aliases."""
    flag: str = NO_FLAG
    secret: bool = False
    allow_empty: bool = False
    """Whether an empty variable is a value; otherwise it counts as not given."""
    expects: str | None = None
    hint: str = ""
    metavar: str | None = None
    rivals: tuple[str, ...] = ()
    """Options that, given in a stronger layer, make this one count as not given in the weaker ones."""
    bare_units: Mapping[str, str] = field(default_factory=dict)
    """The unit of a number without one, where it depends on the flag or variable that carries it."""
    mask: Callable[[Any], str] | None = None
    """How a secret is shown; otherwise not at all."""
    parse: Parser = str
    """Return the value in its type and within its bounds, or raise ValueError or TypeError."""

    @property
    def expected(self) -> str:
        """Complete the sentence "must be ..."."""
        return self.expects or expectation(_rule(self))

    @property
    def default_text(self) -> str:
        """Return the default as a user would write it; empty where there is none."""
        return "" if self.default is None or self.default == () else value_text(self.default, self.unit)

    @property
    def flag_text(self) -> str:
        """Return the flag as help shows it: one that switches has a second form that switches off."""
        return f"{self.flag}/--no-{self.flag.removeprefix('--')}" if self.type is bool and self.flag else self.flag

    @property
    def can_be_none(self) -> bool:
        """Say whether the word ``none`` is understood."""
        return _rule(self).nameable_none

    def hides(self, value: Any) -> bool:
        """Say whether there is anything secret in ``value``."""
        return self.secret and value not in (None, "") and self.masked(value) != value

    def masked(self, value: Any) -> Any:
        """Return ``value`` as it may be shown: that of a secret masked."""
        if not self.secret or value in (None, ""):
            return value
        return self.mask(value) if self.mask is not None else "***"


def option(
    default: Any,
    *,
    help: str,
    unit: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    parse: Parser | None = None,
    env: Sequence[str] = (),
    flag: str | None = None,
    secret: bool = False,
    allow_empty: bool = False,
    expects: str | None = None,
    hint: str = "",
    metavar: str | None = None,
    name: str = "",
    rivals: Sequence[str] = (),
    bare_units: Mapping[str, str] | None = None,
    mask: Callable[[Any], str] | None = None,
) -> Any:
    """Declare a dataclass field as an option.

    ``unit="bytes"`` and ``unit="seconds"`` bring the parsers for sizes and durations. Bounds are inclusive; for text
    they bound its length, for tuples the number of elements. ``parse`` replaces the parser that the type gives: it
    takes whatever a layer holds and raises `Expected`, whose text completes "must be ...", or any ValueError or
    TypeError, after which ``expects`` is what the user reads; bounds are checked after it. ``bare_units`` maps a flag
    or variable to the unit of a bare number there: ``{"--memory": "MB"}``. ``flag`` is the name with dashes unless
    given; `NO_FLAG` makes none, and a secret never has one. ``name`` is the name in files and keyword arguments where
    it differs from the field's. ``hint`` ends every refusal with the next step.
    """
    declared = Option(
        name=name,
        default=default,
        help=help,
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        choices=tuple(choices) if choices is not None else None,
        env=tuple(env),
        flag=flag if flag is not None else "--",
        secret=secret,
        allow_empty=allow_empty,
        expects=expects,
        hint=hint,
        metavar=metavar,
        rivals=tuple(rivals),
        bare_units=bare_units or {},
        mask=mask,
    )
    return field(default=default, repr=not secret, metadata={"option": declared, "parse": parse})


@cache
def options_of(cls: type) -> tuple[Option, ...]:
    """Return the options that a dataclass declares, in order. Computed once a class."""
    hints = typing.get_type_hints(cls)
    return tuple(
        _complete(declared.metadata, declared.name, hints[declared.name])
        for declared in dataclasses.fields(cls)
        if "option" in declared.metadata
    )


@cache
def option_table(cls: type) -> Mapping[str, Option]:
    """Return the options of `options_of` by name."""
    return types.MappingProxyType({each.name: each for each in options_of(cls)})


def convert(
    option: Option, value: Any, source: str = "", *, error: type[TaskQueueError] = InvalidOption, carrier: str = ""
) -> Any:
    """Return ``value`` in the option's type and within its bounds; text is parsed.

    ``carrier`` is the flag or variable that carried the value. Raises ``error`` with one sentence that names
    ``source``, the option, what was expected and what came, unless the option is secret.
    """
    try:
        if carrier in option.bare_units:
            return option.parse(with_unit(value, option.bare_units[carrier]))
        return option.parse(value)
    except Expected as refusal:
        expected = str(refusal)
    except TaskQueueError as refusal:
        if not option.secret:
            raise error(f"{_prefix(source)}{option.name}: {refusal}") from refusal
        expected = option.expected
    except (ValueError, TypeError, OverflowError):
        expected = option.expected
    raise error(refusal_text(option, value, source, expected))


def convert_all(
    cls: type, given: Mapping[str, Any], source: str = "", *, error: type[TaskQueueError] = InvalidOption
) -> dict[str, Any]:
    """Return the given options of ``cls``, converted; those that are None are left out.

    Raises ``error`` for a value that does not fit and for an unknown name, with the nearest known ones. This is the
    quick way for keyword arguments: it costs nothing for options that are not given.
    """
    table = option_table(cls)
    values = {}
    for name, value in given.items():
        declared = table.get(name)
        if declared is None:
            raise error(unknown_text(name, table, source))
        if value is not None:
            values[declared.attribute] = convert(declared, value, source, error=error)
    return values


@dataclass(frozen=True, slots=True)
class Layer:
    """One place that may give values: the command line, the environment, a file, a class, keyword arguments."""

    source: str
    given: Mapping[str, Any]
    """Option name to value; None is "not given"."""
    refuse_unknown: bool = True
    carriers: Mapping[str, str] = field(default_factory=dict)
    """Option name to what carried it there: a flag, a variable, a key."""
    error: type[TaskQueueError] = InvalidSetting
    unknown: type[TaskQueueError] = UnknownSetting

    def source_of(self, name: str) -> str:
        """Return the words that name the place of one value, such as ``environment WORKERS``."""
        return f"{self.source} {self.carriers.get(name, '')}".strip()


def flag_layer(cls: type, given: Mapping[str, Any]) -> Layer:
    """Return the layer of the command line: refusals name the flag and are a `UsageError`."""
    table = option_table(cls)
    carriers = {name: table[name].flag for name in given if name in table}
    return Layer("", given, carriers=carriers, error=UsageError, unknown=UsageError)


@dataclass(frozen=True, slots=True)
class Resolved(Generic[T]):
    """A filled dataclass of options, and where each value came from."""

    value: T
    sources: Mapping[str, str]


def resolve(cls: type[T], layers: Sequence[Layer]) -> Resolved[T]:
    """Fill ``cls`` from ``layers``: for each option the first layer that gives a value wins, else its default.

    Raises the layer's own error for a value that does not fit, and for a name that ``cls`` does not have where the
    layer refuses unknown names. A value that a stronger layer overrides is not looked at.
    """
    declaring: type = cls
    table = option_table(declaring)
    for layer in layers:
        if layer.refuse_unknown:
            _refuse_unknown(layer, table)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(table, DEFAULT)
    for name, declared in table.items():
        strongest = _strongest(declared, layers)
        if strongest is not None:
            sources[name] = strongest.source_of(name)
            values[declared.attribute] = _convert_from(strongest, declared)
    return Resolved(_construct(cls, values, layers), sources)


def _strongest(option: Option, layers: Sequence[Layer]) -> Layer | None:
    """Return the first layer that gives the option, unless a stronger one gives a rival of it."""
    for layer in layers:
        if layer.given.get(option.name) is not None:
            return layer
        if any(layer.given.get(rival) is not None for rival in option.rivals):
            return None
    return None


def _convert_from(layer: Layer, option: Option) -> Any:
    name = option.name
    carrier = layer.carriers.get(name, "")
    return convert(option, layer.given[name], layer.source_of(name), error=layer.error, carrier=carrier)


def _construct(cls: type[T], values: Mapping[str, Any], layers: Sequence[Layer]) -> T:
    """Make the value; a conflict between options is the error of the strongest layer that gave one of them."""
    try:
        return cls(**values)
    except SettingsConflict as conflict:
        for layer in layers:
            if any(layer.given.get(name) is not None for name in conflict.names):
                raise layer.error(str(conflict)) from conflict
        raise


def refusal_text(option: Option, value: Any, source: str, expected: str) -> str:
    """Return the sentence that refuses ``value``; a secret's value is not in it."""
    came = "a value that is not shown" if option.secret else shown(value)
    near = ""
    if option.choices is not None and isinstance(value, str) and not option.secret:
        near = did_you_mean(value.lower(), option.choices)
    hint = f"; {option.hint}" if option.hint else ""
    return f"{_prefix(source)}{option.name} must be {expected}, got {came}{near}{hint}"


def unknown_text(name: str, known: Mapping[str, Option] | Sequence[str], source: str, what: str = "option") -> str:
    """Return the sentence that refuses an unknown name, with the nearest known names."""
    return f"{_prefix(source)}there is no {what} {shown(name)}{did_you_mean(str(name), known)}"


def shown(value: Any) -> str:
    """Return ``value`` as it is quoted in a message, cut at 80 characters."""
    text = repr(str(value) if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _prefix(source: str) -> str:
    return f"{source}: " if source else ""


def _refuse_unknown(layer: Layer, table: Mapping[str, Option]) -> None:
    for name in layer.given:
        if name not in table:
            raise layer.unknown(unknown_text(name, table, layer.source))


def _complete(metadata: Mapping[str, Any], name: str, hint: Any) -> Option:
    declared: Option = metadata["option"]
    kind, item, nullable = _type_of(hint)
    name, attribute = declared.name or name, name
    choices = declared.choices
    if choices is None and isinstance(kind, type) and issubclass(kind, Enum):
        choices = tuple(str(member.value) for member in kind)
    flag = f"--{name.replace('_', '-')}" if declared.flag == "--" else declared.flag
    complete = dataclasses.replace(
        declared,
        name=name,
        attribute=attribute,
        type=kind,
        item=item,
        nullable=nullable,
        choices=choices,
        flag=NO_FLAG if declared.secret else flag,
    )
    return dataclasses.replace(complete, parse=converter(_rule(complete), metadata["parse"]))


def _type_of(hint: Any) -> tuple[Any, Any, bool]:
    """Return the type without None, the type of an element, and whether None was allowed."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [each for each in arguments if each is not types.NoneType]
        kind, item, _ = _type_of(rest[0]) if len(rest) == 1 else (Any, None, False)
        return kind, item, len(rest) < len(arguments)
    if typing.get_origin(hint) is tuple:
        return tuple, arguments[0], False
    return hint, None, False


def _rule(option: Option) -> Rule:
    return Rule(option.type, option.item, option.nullable, option.unit, option.minimum, option.maximum, option.choices)

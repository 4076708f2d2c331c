"""From a dataclass of options to flags: each option that a command takes becomes one, with the declared help.

::

    @app.command("queue:work")
    @with_options(WorkerSettings, only=("workers", "memory"))
    def queue_work(given: Mapping[str, Any], queues: list[str]) -> None: ...

The command gets what was given, as it was typed: values are checked where those of environment and files are, so that
all refusals read alike and None stays "not given".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import HAS_RICH

from taskqueue.errors import UsageError
from taskqueue.options import Option, options_of

Command = Callable[..., Any]

_METAVARS = {int: "N", float: "NUMBER", str: "TEXT", tuple: "TEXT"}
_UNIT_METAVARS = {"seconds": "SECONDS", "bytes": "SIZE"}


def with_options(
    cls: type, *, only: Iterable[str] | None = None, exclude: Iterable[str] = (), into: str = "given"
) -> Callable[[Command], Command]:
    """Give a command the flags of the options of ``cls``; its parameter ``into`` gets a mapping of those given.

    ``only`` and ``exclude`` name options; those without a flag are left out. An option with a limit that can be lifted
    gets a second flag, ``--no-timeout``. Use it twice, with two names for ``into``, to take options of two classes.
    Raises TypeError when it is applied, for a name that is no option with a flag or that the command has already.
    """
    chosen = _choose(cls, None if only is None else tuple(only), tuple(exclude))

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        if into not in signature.parameters:
            raise TypeError(f"{command.__name__} has no parameter {into!r} to take its options")
        own = [each for each in signature.parameters.values() if each.name != into]
        added = [parameter for option in chosen for parameter in _parameters(option)]
        _refuse_twice(command, own, added)

        @wraps(command)
        def run(*args: Any, **values: Any) -> Any:
            typed = {parameter.name: values.pop(parameter.name, None) for parameter in added}
            return command(*args, **values, **{into: _given(chosen, typed)})

        _describe(run, signature.replace(parameters=[*map(_by_keyword, own), *added]))
        return run

    return decorate


def help_text(option: Option) -> str:
    """Return the help of a flag: what it does, then its unit, default and environment names."""
    facts = []
    if option.default_text:
        unit = f" {option.unit}" if option.unit and option.unit != "bytes" else ""
        facts.append(f"default {option.default_text}{unit}")
    elif option.unit and option.unit != "bytes":
        facts.append(f"in {option.unit}")
    if option.env:
        facts.append(f"environment {' or '.join(option.env)}")
    return _escape(f"{option.help} ({'; '.join(facts)})" if facts else option.help)


def _choose(cls: type, only: tuple[str, ...] | None, exclude: tuple[str, ...]) -> tuple[Option, ...]:
    flagged = {option.name: option for option in options_of(cls) if option.flag}
    for name in (*(only or ()), *exclude):
        if name not in flagged:
            raise TypeError(f"{cls.__name__} has no option {name!r} with a flag")
    names = flagged if only is None else only
    return tuple(flagged[name] for name in names if name not in exclude)


def _parameters(option: Option) -> Iterator[inspect.Parameter]:
    yield _parameter(option.name, _annotation(option))
    if _can_be_lifted(option):
        lift = typer.Option(_lifting_flag(option), help=f"No limit: {option.flag} none.")
        yield _parameter(_lifting_name(option), Annotated[bool | None, lift])


def _annotation(option: Option) -> Any:
    if option.type is bool:
        return Annotated[bool | None, typer.Option(option.flag_text, help=help_text(option))]
    kind = list[str] | None if option.type is tuple else str | None
    return Annotated[
        kind,
        typer.Option(
            option.flag,
            help=help_text(option),
            metavar=_metavar(option),
            autocompletion=_completion(option.choices) if option.choices else None,
        ),
    ]


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _by_keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    """Typer passes everything by keyword, and only so may a parameter without a default follow one that has one."""
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _metavar(option: Option) -> str:
    if option.metavar is not None:
        return option.metavar
    if option.choices is not None:
        return "|".join(option.choices)
    return _UNIT_METAVARS.get(option.unit or "") or _METAVARS.get(option.type, "VALUE")


def _completion(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _can_be_lifted(option: Option) -> bool:
    return option.can_be_none and option.default is not None


def _lifting_name(option: Option) -> str:
    return f"no_{option.name}"


def _lifting_flag(option: Option) -> str:
    return f"--no-{option.flag.removeprefix('--')}"


def _given(chosen: Iterable[Option], typed: Mapping[str, Any]) -> dict[str, Any]:
    given = {}
    for option in chosen:
        value = typed[option.name]
        if _can_be_lifted(option) and typed[_lifting_name(option)]:
            if value is not None:
                raise UsageError(f"give {option.flag} or {_lifting_flag(option)}, not both")
            value = "none"
        # Typer answers a list that was not given with an empty one on some of its versions.
        if value is not None and value != []:
            given[option.name] = value
    return given


def _refuse_twice(command: Command, own: list[inspect.Parameter], added: list[inspect.Parameter]) -> None:
    twice = {each.name for each in own} & {each.name for each in added}
    if twice:
        raise TypeError(f"{command.__name__} has the option {', '.join(sorted(twice))} already")


def _describe(run: Command, signature: inspect.Signature) -> None:
    """Show Typer the new signature, in both of the places where it looks."""
    vars(run)["__signature__"] = signature
    annotations = {each.name: each.annotation for each in signature.parameters.values()}
    run.__annotations__ = annotations | {"return": signature.return_annotation}
    del vars(run)["__wrapped__"]


def _escape(text: str) -> str:
    """Keep square brackets, which Rich would otherwise read as markup and drop."""
    return text.replace("[", "\\[") if HAS_RICH else text

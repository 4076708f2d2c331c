"""The shape of the application: commands that are loaded when they are named, their help, and their listing.

A command is one module of ``commands`` with a function ``register(app)``; the module ``queue_work`` makes the command
``queue:work``. Importing all of them would cost every start what only one of them needs.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from importlib import import_module
from itertools import groupby
from os import environ
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from taskqueue import __version__
from taskqueue.errors import UsageError, did_you_mean

from .output import PROGRAM, clean, is_terminal

WIDEST_HELP = 100

_HEADING = re.compile(r"^(\S[^\n]*:)$", re.MULTILINE)
_LABEL = re.compile(r"^(  )(--[a-z][^\n]*?|[a-z]+:[a-z]+|doctor|help|list)(?=  |$)", re.MULTILINE)
_PLAIN_TYPE = re.compile(r" <(?:list\[str\]|str)>$")
_WIDEST_LABEL = 32


def examples(*lines: str) -> str:
    """Return the epilog that shows worked examples, one to a line."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def help_width() -> int:
    """Return how wide help is written: as the terminal, but no wider than reads well."""
    return max(20, min(shutil.get_terminal_size((WIDEST_HELP, 24)).columns, WIDEST_HELP))


class Command(TyperCommand):
    """A command whose help ends with examples as they were written."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options beside what they mean, or above it where the terminal is narrow."""
        for kind in ("argument", "option"):
            records = [each.get_help_record(ctx) for each in self.get_params(ctx) if each.param_type_name == kind]
            shown = [(f"  {_PLAIN_TYPE.sub('', record[0])}", record[1]) for record in records if record is not None]
            if not shown:
                continue
            label = min(max(len(name) for name, _ in shown) + 2, _WIDEST_LABEL)
            lines = [line for name, text in shown for line in _wrapped(name, text, label)]
            formatter.write("\n".join(["", f"{kind.capitalize()}s:", *lines, ""]))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the parser's signature
        """Write the examples line by line; wrapped they could not be copied."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")

    def get_help(self, ctx: Any) -> str:
        """Return the help, with headings and flags in colour on a terminal."""
        # Declared help texts are escaped for Rich's markup, which is not used here.
        return _coloured(super().get_help(ctx).replace("\\[", "["))


class CommandGroup(TyperGroup):
    """Commands by the names of their modules; each is imported when it is asked for."""

    modules: ClassVar[tuple[str, ...]] = ()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the parser's signature
        """Return the names of all commands."""
        return [_command_name(module) for module in self.modules]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the parser's signature
        """Return a command, importing its module; None where there is no such command."""
        if cmd_name not in self.commands:
            module = next((each for each in self.modules if _command_name(each) == cmd_name), None)
            if module is None:
                return None
            self.commands[cmd_name] = _load(module)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names; raise `UsageError` with the nearest ones."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is not None:
            return name, command, args[1:]
        if name.startswith("-"):
            raise UsageError(f"there is no option {clean(name[:80])!r} before a command; `{PROGRAM} help` shows all")
        known = self.list_commands(ctx)
        within = [each for each in known if each.startswith(f"{name.rstrip(':')}:")]
        near = f"; there are {', '.join(within)}" if within else did_you_mean(name, known)
        raise UsageError(f"there is no command {clean(name[:80])!r}{near or f'; `{PROGRAM} list` shows all'}")

    def get_help(self, ctx: Any) -> str:
        """Return the listing of all commands."""
        return _coloured(self.listing(ctx))

    def listing(self, ctx: Any) -> str:
        """Return every command with its one line of help, in groups by the word before the colon."""
        summaries = self.summaries(ctx)
        label = max(map(len, summaries)) + 4
        lines = [
            f"taskqueue {__version__}",
            "",
            f"Usage: {PROGRAM} COMMAND [OPTIONS] [ARGS]",
            "",
            "Options:",
            *_wrapped("  --help", "Show this, or after a command its own help.", label),
            *_wrapped("  --version", "Show the version.", label),
            *_wrapped("  --debug", "Show where an error came from; may stand anywhere.", label),
        ]
        for group, names in groupby(sorted(summaries, key=_group), _group):
            lines += ["", f"{group or 'Commands'}:"]
            for name in names:
                lines += _wrapped(f"  {name}", summaries[name], label)
        return "\n".join(lines)

    def summaries(self, ctx: Any) -> dict[str, str]:
        """Return the first line of each command's help by its name."""
        return {
            name: str(self.get_command(ctx, name).help or "").partition("\n")[0] for name in self.list_commands(ctx)
        }


def _command_name(module: str) -> str:
    return module.replace("_", ":", 1)


def _group(name: str) -> str:
    """Return the word before the colon; empty for a command without one."""
    return name.rpartition(":")[0]


def _load(module: str) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    import_module(f".commands.{module}", __package__).register(app)
    (command,) = get_group(app).commands.values()
    return command


def _wrapped(label: str, text: str, width: int) -> list[str]:
    """Return text beside its label, or below it where the terminal is narrow."""
    room = help_width()
    narrow = width + 20 > room
    indent = " " * (6 if narrow else width)
    if narrow or len(label) + 2 > width:
        return [label, *textwrap.wrap(text, room, initial_indent=indent, subsequent_indent=indent)]
    return textwrap.wrap(text, room, initial_indent=label.ljust(width), subsequent_indent=indent)


def _coloured(text: str) -> str:
    """Return help with headings in bold, commands and flags in cyan, where a terminal shows colours."""
    if not is_terminal() or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return text
    text = _HEADING.sub("\x1b[1m\\1\x1b[0m", text)
    return _LABEL.sub("\\1\x1b[36m\\2\x1b[0m", text)

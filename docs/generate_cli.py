"""Write the page on the command line from its declarations: ``python -m docs.generate_cli``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from typer.main import get_group

from taskqueue.cli.main import app

HERE = Path(__file__).resolve().parent
PAGE = HERE / "cli.md"

_INTRODUCTION = """\
# Command line

<!-- Made by `python -m docs.generate_cli`; edit the commands in cli/commands instead. -->

`worker list` lists the commands and `worker help COMMAND` shows one. From a checkout it is `./worker`.

- Reading commands take `--json`: one document on standard output; notes and logs are on standard error.
- On a terminal times are ages, and a table that is too wide becomes blocks; an id is never cut. In a pipe there is
  plain aligned text with times in UTC. `NO_COLOR` is heeded.
- What comes from data is escaped: control characters are shown, not obeyed.
- An error is one line `worker: ...` on standard error. `--debug`, anywhere, shows where it came from.
- Commands that change many jobs say how many first and ask; without a terminal they need `--yes`.
- No option carries a secret: keys and passwords come from the environment or from files, see
  [configuration](configuration.md).

| Exit code | Meaning |
| --- | --- |
| 0 | done; a node that was asked to stop, or reached a limit, too |
| 1 | failed, or declined |
| 2 | the command line cannot be used as it is |
| 3 | the named thing does not exist |
| 69 | the database cannot be reached |
| 75 | try again later: a lock was held, or no room is left |
| 78 | settings, keys or tables do not fit |
| 130 | interrupted |
| 141 | the reader of the output went away |
"""


def command_line_page() -> str:
    """Return docs/cli.md."""
    group: Any = get_group(app)
    context = typer.Context(group, info_name="worker")
    names = sorted(group.list_commands(context), key=lambda name: (":" in name, name))
    return "\n".join([_INTRODUCTION, *(_section(name, group.get_command(context, name)) for name in names)])


def main() -> None:
    """Write the page."""
    PAGE.write_text(command_line_page(), encoding="utf-8")


def _section(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    usage = " ".join(["worker", name, *map(_usage, arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"## {name}\n", f"{_unescaped(command.help)}\n", f"```\n{usage}\n```\n"]
    rows = [*((_argument(each), each.help) for each in arguments), *((_flags(each), each.help) for each in options)]
    if rows:
        parts.append(_table(rows))
    parts.append(f"```console\n{_examples(command.epilog)}\n```\n")
    return "\n".join(parts)


def _usage(argument: Any) -> str:
    shown = _argument(argument)
    return shown if argument.required else f"[{shown}]"


def _argument(argument: Any) -> str:
    return f"{argument.metavar or argument.name.upper()}{'...' if argument.nargs == -1 else ''}"


def _flags(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'TEXT'}"
    return " / ".join([*option.opts, *option.secondary_opts]) + value


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = ["| What | Meaning |", "| --- | --- |"]
    lines += [f"| `{_cell(name)}` | {_cell(_unescaped(text))} |" for name, text in rows]
    return "\n".join(lines) + "\n"


def _examples(epilog: str) -> str:
    return "\n".join(f"$ {line.strip()}" for line in epilog.splitlines()[1:])


def _unescaped(text: str | None) -> str:
    """Take away what keeps square brackets from being read as markup."""
    return (text or "").replace("\\[", "[")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()

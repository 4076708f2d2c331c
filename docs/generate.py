"""Write the pages of this folder that are made from declarations: ``python -m docs.generate``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from taskqueue.job_options import JobOptions
from taskqueue.options import Option, options_of
from taskqueue.settings import GROUPS

HERE = Path(__file__).resolve().parent

_INTRODUCTION = """\
# Configuration

<!-- Made by `python -m docs.generate`; edit the declarations in taskqueue/settings.py and its neighbours instead. -->

A setting is looked for in this order, and the first place that gives it wins:

1. flags on the command line
2. the environment
3. `.env` in the working directory
4. `taskqueue.toml` in the working directory
5. `[tool.taskqueue]` in `pyproject.toml` in the working directory
6. the default

`worker config:show` prints every setting with the place that it came from; secrets are masked.

- Where two settings stand for the same thing (`DATABASE_URL` and `DB_CONNECTION` or `DB_PATH`; `ENCRYPTION_KEY` and
  `ENCRYPTION_KEY_FILE`), the stronger place decides. Given in one place, `DATABASE_URL` beats its parts, and two keys
  are refused.
- An empty variable counts as not given, except `ENCRYPTION_KEY` (refused) and `DB_PASSWORD` (no password).
- Sizes: bytes, or `50MB`, `64MiB`, `1g`; powers of 1024 in either spelling. After `--memory` a bare number is MB.
- Durations: seconds, or `500ms`, `30s`, `5m`, `2h`, `30d`, `1w`. Where a limit can be lifted, say `none`.
- True or false: `true`, `yes`, `on`, `1`, or `false`, `no`, `off`, `0`. Lists: separated by commas, in TOML an array.
- A value that does not fit ends the command: exit code 2 for a flag, 78 for a variable or a file.

## Files

`.env` holds lines `NAME=value`. Understood are a byte order mark, CRLF, `export` before the name, single quotes, double
quotes with backslash escapes, and `# comments`, on a line of their own or after a blank behind the value. `$NAME` is
not expanded. A line that is none of this is refused by its number; its value is not shown. A variable that starts like
ours and is no setting is ignored with a warning.

In `taskqueue.toml` each table below is a TOML table; settings of the table `general` stand at the top, outside of any.
An unknown key is refused. In `pyproject.toml` the same goes under `tool.taskqueue`.

```toml
environment = "production"

[worker]
workers = 4
memory = "100MB"
imports = ["shop.jobs"]
```

A file that holds a secret and that other users can read is a warning, in production an error: `chmod 600 .env`.
"""

_JOBS = """\
## Options of a job

Class attributes set them for a job class, keyword arguments for one job, flags for `queue:push`. They are no settings:
no environment variable or file gives them.
"""


def configuration_page() -> str:
    """Return docs/configuration.md."""
    groups = [f"## {group}\n\n{_table(options_of(cls), with_environment=True)}" for group, cls in GROUPS.items()]
    jobs = f"{_JOBS}\n{_table(options_of(JobOptions), with_environment=False)}"
    return "\n".join([_INTRODUCTION, *groups, jobs])


PAGES: Mapping[str, Callable[[], str]] = {"configuration.md": configuration_page}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


def _table(options: Iterable[Option], *, with_environment: bool) -> str:
    head = ["Name", "Flag", "Environment", "Default", "Must be", "What it does"]
    rows = [head, ["---"] * len(head), *map(_row, options)]
    if not with_environment:
        rows = [row[:2] + row[3:] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(option: Option) -> list[str]:
    return [
        _code(option.name),
        _code(option.flag_text),
        ", ".join(map(_code, option.env)),
        _code(option.default_text),
        _cell(option.expected.rstrip(",")),
        _cell(option.help),
    ]


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()

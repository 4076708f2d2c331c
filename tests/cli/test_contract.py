"""The commands and options that scripts rely on: a change here is a change for users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_group

from taskqueue.cli.main import COMMANDS, app

from .conftest import ROOT, Worker

pytestmark = pytest.mark.any_database

FILTERS = ["--queue", "--tag", "--class", "--since"]
BULK = ["ID...", "--all", "--yes", *FILTERS]
CONTRACT = {
    "help": ["COMMAND..."],
    "list": ["--json"],
    "config:show": ["--json"],
    "db:reset": ["--yes"],
    "db:status": ["--json"],
    "db:upgrade": ["--share"],
    "doctor": ["--fix", "--json"],
    "key:generate": [],
    "key:status": ["--json"],
    "node:drain": ["NODE...", "--all", "--wait"],
    "node:list": ["--all", "--json"],
    "queue:cancel": BULK,
    "queue:failed": ["--json", *FILTERS, "--limit"],
    "queue:flush": ["QUEUE", "--yes"],
    "queue:forget": ["ID..."],
    "queue:list": ["--json", "--queue", "--state", "--tag", "--class", "--since", "--limit"],
    "queue:pause": ["QUEUE", "--note"],
    "queue:purge": ["--older-than", "--state", "--queue", "--keep", "--yes", "--json"],
    "queue:push": [
        "CLASS",
        "--payload",
        "--json",
        "--queue",
        "--priority",
        "--tags",
        "--category",
        "--dependencies",
        "--on-parent-failure",
        "--delay",
        "--at",
        "--run-at",
        "--expires-in",
        "--max-attempts",
        "--retry-interval",
        "--backoff",
        "--timeout",
        "--memory-limit",
        "--force-spawn",
        "--no-force-spawn",
        "--delivery",
        "--unique-key",
        "--on-conflict",
        "--import",
    ],
    "queue:resume": ["QUEUE"],
    "queue:retry": BULK,
    "queue:show": ["ID", "--payload", "--result", "--json"],
    "queue:status": ["--queue", "--json"],
    "queue:test": ["--jobs", "--queue", "--priority", "--delay", "--yes", "--json"],
    "queue:work": [
        "QUEUE...",
        "--workers",
        "--pm",
        "--min-workers",
        "--max-workers",
        "--memory",
        "--max-jobs",
        "--no-max-jobs",
        "--timeout",
        "--no-timeout",
        "--job-timeout",
        "--concurrency",
        "--stop-when-empty",
        "--no-stop-when-empty",
        "--max-time",
        "--grace",
        "--import",
        "--node-name",
        "--log-level",
        "--log-format",
    ],
}


def commands() -> dict[str, Any]:
    group: Any = get_group(app)
    context = typer.Context(group, info_name="worker")
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def words_of(param: Any) -> list[str]:
    if param.param_type_name == "argument":
        return [f"{param.metavar}{'...' if param.nargs == -1 else ''}"]
    return [*param.opts, *param.secondary_opts]


def test_the_commands_and_their_options_are_these() -> None:
    found = {
        name: sorted(word for each in command.params for word in words_of(each)) for name, command in commands().items()
    }
    assert found == {name: sorted(words) for name, words in CONTRACT.items()}


def test_every_file_of_a_command_is_listed() -> None:
    files = {path.stem for path in (ROOT / "cli" / "commands").glob("*.py")} - {"__init__"}
    assert files == set(COMMANDS)


@pytest.mark.parametrize("name", CONTRACT)
def test_the_help_of_a_command_says_what_it_does_and_ends_with_examples(name: str, worker: Worker) -> None:
    shown = worker("help", name).out
    assert shown == worker(name, "--help").out
    assert shown.startswith(f"Usage: worker {name}")
    examples = shown.partition("\nExamples:\n")[2].splitlines()
    assert examples
    assert all(f"worker {name.partition(' ')[0]}" in line for line in examples)
    assert "\\[" not in shown
    assert "list[str]" not in shown


@pytest.mark.parametrize("words", [(), ("list",), ("help",), ("--help",)])
def test_the_listing_names_every_command_with_one_line_of_help(words: tuple[str, ...], worker: Worker) -> None:
    lines = {line.split()[0]: line for line in worker(*words).out.splitlines() if line.startswith("  ")}
    for name, command in commands().items():
        assert lines[name].endswith(command.help.partition("\n")[0])


def test_the_listing_groups_commands_by_the_word_before_the_colon(worker: Worker) -> None:
    shown = worker("list").out
    assert [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "Options:",
        "Commands:",
        "config:",
        "db:",
        "key:",
        "node:",
        "queue:",
    ]


def test_the_listing_is_a_document_too(worker: Worker) -> None:
    assert {each["name"] for each in worker("list", "--json").document["commands"]} == set(CONTRACT)


def test_help_fits_forty_columns(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, worker("list").out.splitlines())) <= 40
    described = worker("help", "queue:work").out.partition("Examples:")[0]
    assert sum(len(line) > 40 for line in described.splitlines()) <= 2  # a flag that is longer itself


def test_the_page_on_the_command_line_is_current() -> None:
    from docs.generate_cli import PAGE, command_line_page

    assert PAGE.read_text(encoding="utf-8") == command_line_page(), "run python -m docs.generate_cli"


def test_the_page_names_every_command_and_option() -> None:
    page = Path(ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, words in CONTRACT.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert all(word in section for word in words), name

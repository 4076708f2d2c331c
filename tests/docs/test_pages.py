"""The manual is true: each command and each Python block of a page is run, and what a page names exists."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from taskqueue.cli.main import COMMANDS
from taskqueue.job_options import JobOptions
from taskqueue.options import options_of
from taskqueue.settings import GROUPS
from taskqueue.states import Reason
from tests.databases import Database
from tests.docs.blocks import PAGES, ROOT, Block, Reader, blocks_of

_LINK = re.compile(r"\]\((?!https?://|#)(?P<target>[^)#]+)(?:#[^)]*)?\)")
_COMMAND = re.compile(r"\bworker ([a-z]+:[a-z]+)")
_VARIABLE = re.compile(r"\b(?:DB|WORKER|ENCRYPTION|LOG|SERVER|DATABASE|TASKQUEUE)(?:_[A-Z]+)+\b")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks_of(page))], ids=lambda page: page.stem)
def test_every_block_of_a_page_works_as_written(page: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for block in blocks_of(page):
        if block.skipped is None:
            reader.follow(block)


@pytest.mark.timeout(300)
def test_the_way_to_a_server_works_on_every_server(new_database: Callable[[], Database], tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.environment["DATABASE_URL"] = new_database().url
    for block in blocks_of(ROOT / "docs" / "databases.md"):
        reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = [match["target"] for match in _LINK.finditer(page.read_text(encoding="utf-8"))]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_named_exists(page: Path) -> None:
    known = {name.replace("_", ":", 1) for name in COMMANDS}
    assert set(_COMMAND.findall(page.read_text(encoding="utf-8"))) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_variable_named_is_a_setting(page: Path) -> None:
    known = {name for group in GROUPS.values() for option in options_of(group) for name in option.env}
    assert set(_VARIABLE.findall(page.read_text(encoding="utf-8"))) - known == set()


def test_only_what_cannot_be_run_here_is_skipped() -> None:
    reasons = {block.skipped for page in PAGES for block in blocks_of(page) if block.skipped}
    assert reasons == {
        "it installs the package",
        "it is a unit file",
        "it is a configuration file",
        "it takes minutes, and the tests have a short form of their own",
    }


def test_the_job_guide_names_every_option_and_every_reason() -> None:
    guide = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    options = {option.name for option in options_of(JobOptions)}
    reasons = {reason.value for reason in Reason}
    assert [name for name in sorted(options | reasons) if f"`{name}`" not in guide] == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bash", "false\n"),
        ("bash", "worker queue:wrok\n"),
        ("bash", "worker queue:status | false | cat\n"),
        ("python", "raise SystemExit(1)\n"),
        ("console", "$ echo one\ntwo\n"),
        ("console", "$ printf 'one\\ntwo\\n'\ntwo\none\n"),
        ("ruby", "puts 1\n"),
    ],
)
def test_a_block_that_does_not_work_fails_its_page(language: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        Reader(tmp_path).follow(Block(Path("page.md"), 1, language, text))


def test_blocks_are_found_with_their_language_and_the_reason_for_skipping(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\na\n```\n\n<!-- test: skip because b -->\n```ini\nb\n```\n<!-- other -->\n```python\nc\n```\n"
    )
    found = [(block.line, block.language, block.text, block.skipped) for block in blocks_of(page)]
    assert found == [(1, "bash", "a\n", None), (6, "ini", "b\n", "b"), (10, "python", "c\n", None)]

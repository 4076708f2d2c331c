"""The code blocks of a page: what they are, and how each of them is run as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MADE_FROM_CODE = {"cli.md", "configuration.md"}
PAGES = (ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in MADE_FROM_CODE))
SKIP = re.compile(r"<!-- test: skip because (?P<why>.+) -->")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
_FILE = re.compile(r"# (?P<name>[\w/]+\.py)\s*$")
_LONGEST = 60

_WORKER = """\
#!/usr/bin/env bash
# The checkout's command line. A node that would wait for more jobs for ever ends when none is left.
case " $* " in
    *" --max-time"*) ;;
    *) export WORKER_STOP_WHEN_EMPTY=true ;;
esac
exec {python} {root}/worker "$@"
"""


@dataclass(frozen=True)
class Block:
    """One fenced block; ``skipped`` is the reason given in the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    skipped: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in their order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    language, skipped = "", None
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            comment = SKIP.fullmatch(lines[number - 2]) if number > 1 else None
            start, language, skipped = number, fence["language"], comment["why"] if comment else None
        else:
            yield Block(page, start, language, "\n".join(lines[start : number - 1]) + "\n", skipped)
            start = None
    assert start is None, f"{page.name}:{start}: the block has no end"


class Reader:
    """Someone who follows a page in an empty folder, with the checkout's ``worker`` and ``python`` on the path."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        self._write_program(programs / "worker", _WORKER.format(python=sys.executable, root=ROOT))
        self._write_program(programs / "python", f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",  # a jobs.py written twice in one second would be taken for the same
        }

    def follow(self, block: Block) -> None:
        """Run a block, or write it where it names a file; fail with what was printed."""
        if block.language == "bash":
            self.run(block, "bash", "-euo", "pipefail", "-c", block.text)
        elif block.language == "console":
            self._compare(block)
        elif block.language == "python":
            self._python(block)
        else:
            raise AssertionError(f"{block}: nobody knows how to run a block of {block.language or 'no language'}")

    def run(self, block: Block, *command: str) -> str:
        """Run a command that must succeed and return what it printed."""
        done = subprocess.run(
            command,
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
        assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{block.text}\n{done.stdout}"
        return done.stdout

    def _python(self, block: Block) -> None:
        first = _FILE.match(block.text.partition("\n")[0])
        if first is None:
            (self.home / "script.py").write_text(block.text, encoding="utf-8")
            self.run(block, "python", "script.py")
        else:
            (self.home / first["name"]).write_text(block.text, encoding="utf-8")
            self.run(block, "python", first["name"])

    def _compare(self, block: Block) -> None:
        """Run what follows each ``$``; the lines below it must be printed, as they are and in this order."""
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            printed = iter([line.rstrip() for line in self.run(block, "bash", "-c", command).splitlines()])
            missing = [line for line in expected if line.strip() and line.rstrip() not in printed]
            assert not missing, f"{block}: `{command}` did not print {missing}"

    @staticmethod
    def _write_program(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

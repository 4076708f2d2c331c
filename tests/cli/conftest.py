"""The command line in this process: as fast as a function, with the exit code and both streams of a process."""

from __future__ import annotations

import json
import logging
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskqueue.cli.main import main
from taskqueue.payload import generate_key
from tests.databases import Database, Server

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


Worker = Callable[..., Outcome]
Use = Callable[..., None]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Commands set up the log of the package; no other test shall find it so."""
    logger = logging.getLogger("taskqueue")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the first use makes, once for all tests: a database without jobs, with its key."""
    folder = tmp_path_factory.mktemp("prepared")
    done = subprocess.run(command("queue:status"), capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "storage"


@pytest.fixture
def worker(fresh: Worker, prepared: Path, server: Server, use: Use, request: pytest.FixtureRequest) -> Worker:
    """Run the command line on an empty database; where it is a file, on the one that the first use makes."""
    if server.in_files:
        shutil.copytree(prepared, "storage")
    else:
        use(request.getfixturevalue("database"))
    return fresh


@pytest.fixture
def bare(fresh: Worker, new_database: Callable[[], Database], use: Use) -> Database:
    """Have the command line use a database without tables."""
    made = new_database()
    use(made)
    return made


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return what has the commands of a test use a database, with a key for it."""

    def point(database: Database, key: str | None = None) -> None:
        monkeypatch.setenv("DATABASE_URL", database.url)
        monkeypatch.setenv("ENCRYPTION_KEY", key or generate_key())

    return point


@pytest.fixture
def fresh(tmp_cwd: Path, capsys: pytest.CaptureFixture[str]) -> Worker:
    """Run the command line in an empty folder."""

    def run(*words: str, code: int | None = 0) -> Outcome:
        capsys.readouterr()
        ended = main(words)
        out, err = capsys.readouterr()
        assert code is None or ended == code, out + err
        return Outcome(ended, out, err)

    return run


@pytest.fixture
def process(tmp_cwd: Path) -> Worker:
    """Run the command line as a process, in the folder of the test."""

    def run(*words: str, code: int | None = 0, **keywords: Any) -> Outcome:
        done = subprocess.run(
            command(*words), capture_output=True, text=True, timeout=60, check=False, **({"cwd": tmp_cwd} | keywords)
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def command(*words: str) -> list[str]:
    """Return what starts the command line of this checkout."""
    return [sys.executable, str(ROOT / "worker"), *words]


class Terminal:
    """A pseudo-terminal in place of standard output; what was shown can be read after it is closed."""

    def __init__(self) -> None:
        self._leader, follower = pty.openpty()
        self.stream = os.fdopen(follower, "w", encoding="utf-8")
        self._shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._leader, 65536)
            except OSError:
                return
            if not piece:
                return
            self._shown += piece

    def shown(self) -> str:
        """Close the terminal and return all that it was sent."""
        if not self.stream.closed:
            self.stream.close()
        self._reader.join(10)
        return self._shown.decode().replace("\r\n", "\n")

    def close(self) -> None:
        self.shown()
        os.close(self._leader)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    """Put a terminal of so many columns in the place of standard output."""
    opened: list[Terminal] = []

    def open_one(columns: int) -> Terminal:
        opened.append(Terminal())
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr(sys, "stdout", opened[-1].stream)
        return opened[-1]

    yield open_one
    monkeypatch.undo()
    for each in opened:
        each.close()

"""A database server of the tests' own, which they may stop, kill, restart and forbid to write."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

HOST = "127.0.0.1"
USER = "tester"
PASSWORD = "not-to-be-shown"
READY_WITHIN = 30.0


class PrivateServer(ABC):
    """A server in a folder of its own, started at once; `close` ends it and removes the folder.

    The processes run as the account that the server's package made where the tests run as root, and end with the tests
    whatever happens to these.
    """

    name: ClassVar[str]
    scheme: ClassVar[str]
    account: ClassVar[str]
    gentle: ClassVar[signal.Signals] = signal.SIGTERM
    """What asks the server to close its connections and to end."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"taskqueue-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        try:
            self._make()
            self.start()
            self._prepare()
        except BaseException:
            self.close()
            raise

    # --- what differs ----------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Say which program is not installed, or None where all are."""

    @abstractmethod
    def _make(self) -> None:
        """Make an empty cluster in the folder."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return what starts the server in the foreground."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the account of the tests, once, on the running server."""

    @abstractmethod
    def execute(self, statement: str, *values: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as the server's administrator, past every proxy, and return its rows."""

    @abstractmethod
    def set_read_only(self, read_only: bool) -> None:
        """Forbid or allow the tests' account to write, on kept connections as on new ones."""

    @abstractmethod
    def connections(self, database: str) -> int:
        """Return how many connections to a database are open."""

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, and return once it takes connections. The caller's thread has to outlive the server."""
        log = (self.folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*self._as_account(dying_with_us=True), *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        try:
            await_that(self._answers, f"{self.name} is ready", READY_WITHIN)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log}") from None

    def stop(self) -> None:
        """Close every connection and end."""
        self._end(self.gentle)

    def kill(self) -> None:
        """End every process of the server at once, without a word to anybody."""
        assert self._process is not None
        tree = [*psutil.Process(self._process.pid).children(recursive=True)]
        self._process.kill()
        for each in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()
        await_that(lambda: not any(map(_runs, tree)), f"every process of {self.name} is gone")
        self._process = None

    def restart(self, *, gently: bool = True) -> None:
        """Stop or kill, and start."""
        if gently:
            self.stop()
        else:
            self.kill()
        self.start()

    def close(self) -> None:
        """End the server and remove its folder."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def log(self) -> str:
        file = self.folder / "server.log"
        return file.read_text(errors="replace")[-3000:] if file.exists() else ""

    # --- databases -------------------------------------------------------------------------------------------

    def new_database(self) -> str:
        """Make an empty database that belongs to the tests' account, and return its name."""
        name = f"tq_{secrets.token_hex(6)}"
        self._make_database(name)
        return name

    @abstractmethod
    def _make_database(self, name: str) -> None:
        """Make a database that the tests' account may do anything in."""

    def url(self, database: str, port: int | None = None) -> str:
        """Return the URL of a database, through another port where one is given."""
        return f"{self.scheme}://{USER}:{PASSWORD}@{HOST}:{port or self.port}/{database}"

    # --- processes -------------------------------------------------------------------------------------------

    @property
    def _account(self) -> pwd.struct_passwd | None:
        """Return the account to become, or None where the tests do not run as root."""
        if os.geteuid():
            return None
        try:
            return pwd.getpwnam(self.account)
        except KeyError:
            return pwd.getpwnam("nobody")

    def _as_account(self, *, dying_with_us: bool = False) -> list[str]:
        account = self._account
        words = ["setpriv"]
        if dying_with_us:
            words += ["--pdeathsig", "KILL"]
        if account is not None:
            words += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        return words if len(words) > 1 else []

    def _run(self, *words: str | Path) -> None:
        done = subprocess.run(
            [*self._as_account(), *map(str, words)],
            capture_output=True, text=True, errors="replace", timeout=120, check=False, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, f"{words[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended with {self._process.returncode}:\n{self.log}"
        try:
            self.execute("SELECT 1")
        except Exception:
            return False
        return True


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def await_that(condition: Callable[[], Any], what: str, patience: float = 30.0) -> Any:
    """Return what ``condition`` returns once that is true; fail after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain until {what}"
        pause.wait(0.01)


def require(missing: str | None) -> None:
    """Skip where a program is missing; fail where continuous integration promised that it is there."""
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing} is not installed, and CI=true: nothing may be left out")
    pytest.skip(f"{missing} is not installed")

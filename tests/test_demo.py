"""The demo keeps its own promises: it works, checks what it says, looks right, and leaves nothing behind."""

from __future__ import annotations

import html
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from taskqueue import QueueManager
from taskqueue.jobs import TestJob
from taskqueue.payload import generate_key
from tests.databases import Database

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "demo.svg"
FOREIGN = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "ENCRYPTION_KEY": "no key", "WORKERS": "0"}
"""Settings of the user's own, which the demo must not meet."""

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Run:
    """A demo that has ended, and the folder in which it made its own."""

    code: int
    out: str
    seconds: float
    temporary: Path


def demo(temporary: Path, *arguments: str | Path, script: str | None = None) -> Run:
    """Run the demo, or a script that uses it, with ``temporary`` as the machine's folder for such things."""
    began = time.monotonic()
    done = subprocess.run(
        command(*arguments) if script is None else [sys.executable, "-c", script],
        env=os.environ | FOREIGN | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
        cwd=temporary.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return Run(done.returncode, done.stdout, time.monotonic() - began, temporary)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "demo.py"), *map(str, arguments)]


def processes_in(folder: Path) -> list[str]:
    """Return the processes that work in a folder of the demo's."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        where = process.info["cwd"] or ""
        if where.startswith(str(folder)):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def left_in(folder: Path) -> list[Path]:
    """Return what was left in a folder, but for the empty one in which the nodes of a user hear of pushes."""
    return [path for path in folder.rglob("*") if path != folder / f"taskqueue-{os.getuid()}"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One whole run in a pipe, among settings of the user's own, that saves its picture."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "temporary").mkdir()
    run = demo(folder / "temporary", "--svg", folder / "demo.svg")
    assert run.code == 0, run.out
    return run


def test_it_takes_less_than_twenty_seconds(shown: Run) -> None:
    assert shown.seconds < 20


def test_it_leaves_no_file_and_no_process(shown: Run) -> None:
    assert left_in(shown.temporary) == []
    assert processes_in(shown.temporary) == []


def test_a_pipe_gets_plain_lines_of_at_most_80_columns(shown: Run) -> None:
    assert "\x1b" not in shown.out
    assert [line for line in shown.out.splitlines() if len(line.rstrip()) > 80 and "queue:" not in line] == []


def test_every_act_is_told(shown: Run) -> None:
    acts = re.findall(r"^ (Start|Push|Work|Report|Order|Retry|Failure|Crash|At rest|Stop) ", shown.out, re.MULTILINE)
    told = dict.fromkeys(acts)
    assert list(told) == ["Start", "Push", "Work", "Report", "Order", "Retry", "Failure", "Crash", "At rest", "Stop"]


def test_the_counts_are_those_of_the_folder(shown: Run) -> None:
    files = [path for path in (ROOT / "taskqueue").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    lines = sum(path.read_bytes().count(b"\n") for path in files)
    assert f"{len(files)} files" in shown.out
    assert f"{lines:,} lines" in shown.out


def test_the_picture_in_the_manual_shows_what_a_run_prints(shown: Run) -> None:
    made = shown.temporary.parent / "demo.svg"
    assert outline(PICTURE) == outline(made), "run `python demo.py --svg docs/demo.svg` and look at it"


def test_the_commands_that_it_recommends_work(shown: Run, tmp_path: Path) -> None:
    recommended = [line.strip() for line in shown.out.splitlines() if " queue:" in line and line.startswith("   ")]
    assert len(recommended) == 3
    for line in recommended:
        program, _, rest = line.partition(" queue:")
        words = [str((shown.temporary.parent / part).resolve()) for part in program.split()]
        words = [part if index else program_of(part) for index, part in enumerate(words)]
        subprocess.run([*words, *f"queue:{rest}".split()], cwd=tmp_path, check=True, capture_output=True, timeout=60)


def program_of(path: str) -> str:
    """Return an interpreter by the name under which it finds its environment: resolving a link would lose that."""
    return sys.executable if Path(path) == Path(sys.executable).resolve() else path


def test_a_terminal_sees_a_bar_that_moves(tmp_path: Path) -> None:
    out = in_terminal(command(), tmp_path)
    assert "Everything held" in out
    assert out.count("━") > 48
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line.rpartition("\r")[2]) for line in out.splitlines()]
    assert [line for line in lines if len(line.rstrip()) > 80 and "queue:" not in line] == []


def test_another_folder_may_be_named_and_the_database_kept(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    run = demo(tmp_path / "temporary", "--keep", ROOT / "alembic")
    assert run.code == 0, run.out
    url = re.search(r"Kept: DATABASE_URL=(\S+)", run.out)
    assert url is not None
    status = subprocess.run(
        [sys.executable, ROOT / "worker", "queue:status"],
        env=os.environ | {"DATABASE_URL": url[1]},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "trials" in status.stdout


def test_a_check_that_fails_ends_it_with_exit_code_1_and_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    wrong = "import demo, sys; right = demo.add_up; demo.add_up = lambda each: right(each) | {'lines': -1}"
    run = demo(tmp_path / "temporary", script=f"{wrong}; sys.exit(demo.main([]))")
    assert run.code == 1
    assert "demo failed: this did not hold: the report's sums" in run.out.splitlines()[-1]
    assert "Traceback" not in run.out
    assert left_in(run.temporary) == []
    assert processes_in(run.temporary) == []


def test_a_folder_without_files_is_refused_in_one_sentence(tmp_path: Path) -> None:
    run = demo(tmp_path, tmp_path)
    assert run.code == 1
    assert "holds no file that can be read" in run.out.splitlines()[-1]


def test_what_is_no_folder_is_refused_as_a_usage_error(tmp_path: Path) -> None:
    run = demo(tmp_path, tmp_path / "missing")
    assert run.code == 2
    assert "is no folder" in run.out


def test_sigterm_ends_it_without_leaving_anything(tmp_path: Path) -> None:
    with subprocess.Popen(command(), env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 60
        while not processes_in(tmp_path):
            assert run.poll() is None
            assert time.monotonic() < deadline
        run.terminate()
        assert run.wait(30) == 143
    assert left_in(tmp_path) == []
    assert processes_in(tmp_path) == []


def outline(picture: Path) -> list[str]:
    """Return the words in each line of a picture, without figures and units, up to the commands at its end."""
    rows: dict[str, str] = {}
    text = picture.read_text(encoding="utf-8")
    for height, words in re.findall(r'<text [^>]*?y="([\d.]+)"[^>]*>([^<]*)</text>', text):
        rows[height] = f"{rows.get(height, '')} {html.unescape(words)}".replace("\xa0", " ")
    story = "\n".join(rows.values()).partition(" Everything held")[0]
    lines = [" ".join(re.findall(r"[A-Za-z]{3,}", row)) for row in story.splitlines()]
    return [line for line in lines if line not in ("", "Work")]  # a slow run says "Work 40 of 92" in between


def in_terminal(words: list[str], folder: Path) -> str:
    """Run a command in a terminal of 80 columns and return what it wrote."""
    return "".join(_read_terminal(words, folder))


def _read_terminal(words: list[str], folder: Path) -> Iterator[str]:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TMPDIR": str(folder), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "30"}
    with subprocess.Popen(words, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True) as run:
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as screen:
            while True:
                try:
                    chunk = screen.read(65_536)
                except OSError:  # Linux's way to say that the other side is closed.
                    break
                if not chunk:
                    break
                yield chunk.decode("utf-8", "replace")
        assert run.wait(30) == 0


# --- on a server -----------------------------------------------------------------------------------------------------


@pytest.mark.needs("remote")
def test_on_a_server_it_makes_its_tables_and_removes_them(new_database: Callable[[], Database], tmp_path: Path) -> None:
    database = new_database()
    (tmp_path / "temporary").mkdir()
    run = demo(tmp_path / "temporary", "--database-url", database.url, ROOT / "alembic")
    assert run.code == 0, run.out
    assert "Everything held" in run.out
    assert database.tables() == set()
    assert left_in(run.temporary) == []
    assert processes_in(run.temporary) == []


@pytest.mark.needs("remote")
def test_on_a_server_with_tables_and_no_jobs_it_leaves_the_tables(database: Database, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    run = demo(tmp_path / "temporary", "--database-url", database.url, ROOT / "alembic")
    assert run.code == 0, run.out
    assert "tq_jobs" in database.tables()
    assert database.rows("SELECT COUNT(*) FROM tq_history") == [(0,)]
    assert database.rows("SELECT COUNT(*) FROM tq_keys") == [(0,)]


@pytest.mark.needs("remote")
def test_a_database_with_jobs_of_others_is_refused_and_not_touched(database: Database, tmp_path: Path) -> None:
    with QueueManager(database.url, encryption_key=generate_key()) as manager:
        manager.push(TestJob({"task": "somebody else's"}))
    run = demo(tmp_path, "--database-url", database.url, ROOT / "alembic")
    assert run.code == 1
    assert "is in use (1 jobs, 0 nodes, 1 keys) and was not touched" in run.out.splitlines()[-1]
    assert database.rows("SELECT COUNT(*) FROM tq_jobs") == [(1,)]


@pytest.mark.needs("remote")
def test_the_database_of_another_application_is_refused(new_database: Callable[[], Database], tmp_path: Path) -> None:
    database = new_database()
    database.run("CREATE TABLE orders (id INTEGER)")
    run = demo(tmp_path, "--database-url", database.url, ROOT / "alembic")
    assert run.code == 1
    assert "another application's tables (orders)" in run.out.splitlines()[-1]
    assert database.tables() == {"orders"}


def test_a_file_is_no_database_of_a_server(tmp_path: Path) -> None:
    run = demo(tmp_path, "--database-url", f"sqlite:///{tmp_path}/mine.db", ROOT / "alembic")
    assert run.code == 1
    assert "--database-url is for servers" in run.out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []

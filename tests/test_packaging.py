"""What is built and installed: every module in its place, one name for each, nothing loaded before it is used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import taskqueue

ROOT = Path(__file__).resolve().parent.parent
LOADED_ON_DEMAND = ("sqlalchemy", "alembic", "typer", "rich", "fastapi", "cryptography")
ABSENT = "import sys, taskqueue; print([name for name in {names!r} if name in sys.modules])"

pytestmark = pytest.mark.xdist_group("packaging")  # one build serves all of them


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with only ``path`` as PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def succeed(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run a command that must succeed, and return what it printed."""
    done = run(*command, cwd=cwd, path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources(folder: str, *, suffix: str = ".py") -> set[str]:
    """Return the files below ``folder`` of the checkout, relative to it."""
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob(f"*{suffix}")}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive, and the wheel from it, as a release does."""
    folder = tmp_path_factory.mktemp("built")
    succeed(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="session")
def in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into a folder."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    succeed(*pip, "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


def test_the_wheel_holds_every_module_of_the_library(in_wheel: set[str]) -> None:
    expected = {f"taskqueue/{name}" for name in sources("taskqueue")}
    assert expected - in_wheel == set()
    assert "taskqueue/py.typed" in in_wheel


def test_the_wheel_holds_the_command_line_inside_the_library(in_wheel: set[str]) -> None:
    expected = {f"taskqueue/cli/{name}" for name in sources("cli")}
    assert expected - in_wheel == set()


def test_the_wheel_holds_the_migrations_inside_the_library(in_wheel: set[str]) -> None:
    expected = {f"taskqueue/migrations/{name}" for name in sources("alembic") | sources("alembic", suffix=".mako")}
    assert expected - in_wheel == set()
    assert any(name.startswith("taskqueue/migrations/versions/") for name in in_wheel)


def test_the_wheel_holds_one_package_and_no_tests(in_wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in in_wheel}
    assert tops == {"taskqueue", f"taskqueue-{taskqueue.__version__}.dist-info"}
    assert [name for name in in_wheel if "tests" in name.split("/") or name.endswith((".pyc", ".db"))] == []


def test_the_source_archive_holds_what_a_checkout_offers(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    offered = {"worker", "demo.py", "alembic.ini", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile"}
    assert offered - names == set()
    assert "tests/test_packaging.py" in names


def test_the_version_is_that_of_the_built_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"taskqueue-{taskqueue.__version__}.dist-info/METADATA"))
    assert metadata["Name"] == "taskqueue"
    assert metadata["Version"] == taskqueue.__version__


def test_the_installed_command_line_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    printed = succeed(sys.executable, "-m", "taskqueue.cli", "--version", cwd=tmp_path, path=installed)
    assert taskqueue.__version__ in printed


def test_the_installed_worker_command_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    printed = succeed(sys.executable, installed / "bin" / "worker", "--version", cwd=tmp_path, path=installed)
    assert taskqueue.__version__ in printed


def test_the_installed_command_line_is_the_one_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import taskqueue.cli.main as main; print(main.__file__)"
    printed = succeed(sys.executable, "-c", code, cwd=tmp_path, path=installed)
    assert Path(printed.strip()) == installed / "taskqueue" / "cli" / "main.py"


def test_the_worker_of_a_checkout_runs_from_any_folder(tmp_path: Path) -> None:
    printed = succeed(sys.executable, ROOT / "worker", "--version", cwd=tmp_path)
    assert taskqueue.__version__ in printed


def test_the_worker_file_is_executable() -> None:
    assert os.access(ROOT / "worker", os.X_OK)


def test_the_worker_of_a_checkout_says_in_one_line_that_its_interpreter_lacks_a_library(tmp_path: Path) -> None:
    done = run(sys.executable, "-S", ROOT / "worker", "list", cwd=tmp_path)  # -S: without site-packages
    assert done.returncode == 78
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "is missing" in done.stderr
    assert "the module taskqueue" not in done.stderr
    assert ".venv/bin/worker" in done.stderr


def test_importing_the_package_loads_no_library_that_is_used_later(tmp_path: Path) -> None:
    printed = succeed(sys.executable, "-c", ABSENT.format(names=LOADED_ON_DEMAND), cwd=tmp_path, path=ROOT)
    assert printed.strip() == "[]"


def test_the_command_line_has_one_name_in_a_checkout(tmp_path: Path) -> None:
    code = "import sys, taskqueue.cli.main; print(sorted(name for name in sys.modules if name.split('.')[0] == 'cli'))"
    assert succeed(sys.executable, "-c", code, cwd=tmp_path, path=ROOT).strip() == "[]"


@pytest.mark.parametrize("name", ["cli", "taskqueue.taskqueue"])
def test_a_second_name_for_a_package_is_refused_with_the_right_one(name: str) -> None:
    done = run(sys.executable, "-c", f"import {name}", cwd=ROOT)
    assert done.returncode == 1
    assert f"import it by that name, not as {name}" in done.stderr.splitlines()[-1]


def test_the_folder_of_migrations_does_not_hide_the_library_alembic() -> None:
    printed = succeed(sys.executable, "-c", "import alembic; print(alembic.__file__)", cwd=ROOT)
    assert not Path(printed.strip()).is_relative_to(ROOT / "alembic")


def test_the_public_names_are_sorted() -> None:
    assert taskqueue.__all__ == sorted(taskqueue.__all__)


@pytest.mark.parametrize("name", taskqueue.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    code = f"from taskqueue import {name}; import taskqueue; assert '{name}' in dir(taskqueue)"
    succeed(sys.executable, "-c", code, cwd=ROOT)


def test_the_names_seen_by_type_checkers_are_the_names_loaded_at_run_time() -> None:
    tree = ast.parse((ROOT / "taskqueue" / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {name: f"taskqueue.{home}" for name, home in vars(taskqueue)["_HOMES"].items()}
    assert typed == loaded
    assert sorted({*loaded, "__version__"}) == taskqueue.__all__


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(taskqueue, "nothing")  # noqa: B009 - a plain access is what type checkers already refuse

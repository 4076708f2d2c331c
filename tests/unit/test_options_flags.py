"""From declared options to flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from taskqueue.cli.options import with_options
from taskqueue.errors import UsageError
from taskqueue.job_options import JobOptions
from taskqueue.options import convert_all, flag_layer, option, options_of, resolve
from taskqueue.settings import EncryptionSettings, WorkerSettings, load_settings


@dataclass(frozen=True)
class Bracketed:
    shape: str = option("a", help="Such as [red] or [/red].", env=("SHAPE",))


def run(*words: str, cls: type = WorkerSettings, **choose: Any) -> dict[str, Any]:
    """Run a command that takes the options of ``cls`` and return what it was given."""
    seen: dict[str, Any] = {}
    app = typer.Typer()

    @app.command("queue:work")
    @with_options(cls, **choose)  # type: ignore[untyped-decorator]  # mypy knows cli/ by another name
    def queue_work(given: Mapping[str, Any], queues: list[str] | None = None) -> None:
        seen.update(given, queues=queues)

    result = CliRunner().invoke(app, words, catch_exceptions=True)
    if isinstance(result.exception, UsageError):
        raise result.exception
    assert result.exit_code == 0, result.output
    seen.pop("queues", None)
    return seen


def show_help(cls: type = WorkerSettings) -> str:
    app = typer.Typer()

    @app.command()
    @with_options(cls)  # type: ignore[untyped-decorator]  # mypy knows cli/ by another name
    def command(given: Mapping[str, Any]) -> None:
        """Do it."""

    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_not_typed_is_not_given() -> None:
    assert run() == {}


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--workers=4"], {"workers": "4"}),
        (["--workers", "0"], {"workers": "0"}),
        (["--workers", "-4"], {"workers": "-4"}),
        (["--stop-when-empty"], {"stop_when_empty": True}),
        (["--no-stop-when-empty"], {"stop_when_empty": False}),
        (["--no-scheduler"], {"scheduler": False}),
        (["--import", "a", "--import", "b"], {"imports": ["a", "b"]}),
        (["--no-timeout"], {"timeout": "none"}),
        (["--timeout", "30m"], {"timeout": "30m"}),
    ],
)
def test_a_flag_is_given_as_it_was_typed(words: list[str], given: dict[str, Any]) -> None:
    assert run(*words) == given


def test_a_variable_is_not_read_by_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "7")
    assert run() == {}


def test_flags_and_settings_work_together(tmp_path: Any) -> None:
    given = run("--memory=100", "--max-jobs=500", "--timeout=1800", "--no-scheduler")
    worker = load_settings({"worker": given}, environ={"WORKER_SCHEDULER": "on"}, directory=tmp_path).settings.worker
    assert (worker.memory, worker.max_jobs, worker.timeout) == (100 * 1024**2, 500, 1800)
    assert worker.scheduler is False


def test_a_limit_and_its_lifting_are_not_given_together() -> None:
    with pytest.raises(UsageError, match="give --timeout or --no-timeout, not both"):
        run("--timeout=5", "--no-timeout")


def test_only_and_exclude_choose() -> None:
    assert run("--workers=4", only=("workers",)) == {"workers": "4"}
    with pytest.raises(AssertionError, match="No such option"):
        run("--memory=4", only=("workers",))
    with pytest.raises(AssertionError, match="No such option"):
        run("--memory=4", exclude=("memory",))


def test_a_secret_has_no_flag() -> None:
    with pytest.raises(AssertionError, match="No such option"):
        run("--key=abc", cls=EncryptionSettings)
    with pytest.raises(TypeError, match="no option 'key' with a flag"):
        with_options(EncryptionSettings, only=("key",))


def test_a_command_that_has_the_parameter_already_is_refused() -> None:
    def command(given: Mapping[str, Any], workers: int = 1) -> None: ...

    with pytest.raises(TypeError, match="has the option workers already"):
        with_options(WorkerSettings)(command)


def test_help_shows_every_flag_with_default_unit_and_variable() -> None:
    shown = " ".join(show_help().replace("\u2502", " ").split())
    for each in options_of(WorkerSettings):
        if each.flag:
            assert each.flag in shown
    assert "(default 50MB; environment WORKER_MEMORY_LIMIT)" in shown
    assert "(default 3600 seconds; environment WORKER_TIMEOUT)" in shown
    assert "environment MAX_WORKERS or WORKER_POOL_SIZE" in shown
    assert "--no-scheduler" in shown
    assert "static|dynamic|ondemand" in shown


def test_square_brackets_survive_in_help() -> None:
    shown = show_help(Bracketed)
    assert "Such as [red] or [/red]." in shown
    assert "\\[" not in shown


def test_a_command_may_take_options_of_two_classes() -> None:
    seen: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @with_options(WorkerSettings, only=("workers",), into="worker")  # type: ignore[untyped-decorator]  # mypy knows cli/ by another name
    @with_options(JobOptions, only=("queue",), into="job")  # type: ignore[untyped-decorator]  # mypy knows cli/ by another name
    def command(worker: Mapping[str, Any], job: Mapping[str, Any], name: str) -> None:
        seen.update(worker=worker, job=job, name=name)

    result = CliRunner().invoke(app, ["me", "--workers", "2", "--queue", "emails"])
    assert result.exit_code == 0, result.output
    assert seen == {"worker": {"workers": "2"}, "job": {"queue": "emails"}, "name": "me"}


def test_job_options_become_flags() -> None:
    given = run("--priority", "high", "--delay", "30s", "--tags", "a", "--tags", "b", cls=JobOptions)
    options = resolve(JobOptions, [flag_layer(JobOptions, given)]).value
    assert (options.priority, options.delay, options.tags) == (10, 30.0, ("a", "b"))


def test_a_bad_job_option_names_the_flag() -> None:
    with pytest.raises(UsageError, match=r"^--delay: delay must be seconds.*got '-30'"):
        resolve(JobOptions, [flag_layer(JobOptions, run("--delay", "-30", cls=JobOptions))])


def test_keyword_options_of_a_job_are_checked_by_the_same_declaration() -> None:
    assert convert_all(JobOptions, {"delay": "5m"}) == {"delay": 300.0}

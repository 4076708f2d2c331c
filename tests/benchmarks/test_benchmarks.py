"""The benchmark programs run, and say what `make bench` promises; with sizes too small to mean anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from benchmarks.databases import KINDS
from benchmarks.databases.kind import Kind
from benchmarks.databases.server import Server
from benchmarks.measure import TINY_RUN
from benchmarks.plan import plan
from tests.benchmarks.conftest import ROOT, Run, bench

FIRST = next(iter(KINDS))
REMOTE = [each for each in KINDS.values() if isinstance(each, Server)]


@pytest.mark.slow
def test_a_push_is_measured_beside_the_bare_loop_at_each_durability(run: Run) -> None:
    found = [each for each in run.found["rates"] if each["measure"] in ("single push", "bulk push")]
    assert {(each["measure"], each["system"], each["durability"]) for each in found} == {
        (measure, system, durability.name)
        for measure in ("single push", "bulk push")
        for system in ("taskqueue", run.kind.bare_name)
        for durability in run.kind.equal_durabilities()
    }
    assert all(each["median"] > 0 for each in found)
    assert all((each["of_bare"] is not None) == (each["system"] == "taskqueue") for each in found)


@pytest.mark.slow
def test_a_drain_is_measured_at_each_durability_beside_the_bare_loop(run: Run) -> None:
    ours = [each for each in run.found["rates"] if each["measure"] == "drain" and each["system"] == "taskqueue"]
    assert [each["durability"] for each in ours] == [each.name for each in run.kind.durabilities]
    assert all(each["median"] > 0 and each["of_bare"] > 0 for each in ours)


@pytest.mark.slow
def test_a_drain_beside_much_that_is_stored_is_a_ratio_of_one_beside_nothing(run: Run) -> None:
    grown = [each for each in run.found["rates"] if each["measure"] == "drain beside"]
    alone, *others = grown
    assert alone["way"] == "nothing else"
    assert [each["way"] for each in others[:3]] == [
        "1,000 jobs waiting behind",
        "1,000 jobs waiting in other queues",
        "1,000 finished jobs",
    ]
    assert len(others) == 3 + bool(run.kind.open_snapshot)
    assert all(each["of_alone"] > 0 for each in others)


@pytest.mark.slow
def test_latency_and_memory_are_read(run: Run) -> None:
    found = run.found["readings"]
    read = {(each["measure"], each["what"]) for each in found if each["system"] == "taskqueue"}
    assert read >= {
        ("idle latency", "p50"),
        ("idle latency", "p95"),
        ("idle latency", "max"),
        ("idle latency", "CPU while idle"),
        ("memory", "private, each worker"),
        ("memory", "PSS, all processes"),
    }


@pytest.mark.slow
def test_every_budget_is_judged(run: Run) -> None:
    judged = {each["budget"].partition(",")[0] for each in _budgets(run)}
    assert judged >= {"single push", "bulk push", "drain", "idle latency", "memory"}
    assert sum("drain beside" in each["budget"] for each in _budgets(run)) == 3 + bool(run.kind.open_snapshot)
    assert {each["result"] for each in _budgets(run)} <= {"goal", "pass", "short"}


def _budgets(run: Run) -> list[dict[str, str]]:
    return [{**each, "budget": each["what"]} for each in run.found["budgets"]]


@pytest.mark.slow
def test_every_figure_names_its_database_and_every_database_its_version_and_settings(run: Run) -> None:
    for part in ("rates", "readings", "budgets", "statements", "databases"):
        assert {each["database"] for each in run.found[part]} == {run.kind.name}
    (described,) = run.found["databases"]
    assert described["version"]
    assert dict(run.kind.settings()) == described["settings"]


@pytest.mark.slow
def test_a_run_says_first_how_long_it_will_take(run: Run) -> None:
    assert run.said.startswith("This takes about")


@pytest.mark.slow
def test_a_run_writes_its_tables_its_picture_and_json(run: Run) -> None:
    page = (run.folder / "README.md").read_text()
    assert "| single push | taskqueue |  |" in page
    assert f"rates-{run.kind.name}.png" in page
    assert (run.folder / f"rates-{run.kind.name}.png").read_bytes().startswith(b"\x89PNG")
    assert (run.folder / "results.json").exists()
    assert {"processor", "cores", "file_system", "flush_ms", "versions", "date"} <= run.found["machine"].keys()


def test_a_part_of_the_run_leaves_the_documents_alone() -> None:
    before = {path: path.read_bytes() for path in (ROOT / "docs" / "benchmarks").iterdir()}
    assert "single push" in bench("--only", "push", "--database", FIRST).stdout
    assert {path: path.read_bytes() for path in (ROOT / "docs" / "benchmarks").iterdir()} == before


def test_tables_go_between_the_marks_of_the_page(tmp_path: Path) -> None:
    begin, end = "<!-- begin: written by make bench -->", "<!-- end: written by make bench -->"
    (tmp_path / "README.md").write_text(f"above\n{begin}\nold figures\n{end}\nbelow\n")
    bench("--only", "push", "--database", FIRST, "--output", str(tmp_path))
    page = (tmp_path / "README.md").read_text()
    assert page.startswith(f"above\n{begin}\n")
    assert page.endswith(f"{end}\nbelow\n")
    assert "old figures" not in page
    assert "| single push | taskqueue |" in page


@pytest.mark.parametrize("remote", REMOTE, ids=lambda each: each.name)
def test_a_database_that_is_named_and_cannot_be_reached_is_an_error_that_says_what_to_do(remote: Server) -> None:
    nowhere = {**os.environ, remote.variable: f"{remote.name}://nobody@127.0.0.1:1/nothing"}
    done = bench("--only", "push", "--database", remote.name, environment=nowhere)
    assert done.returncode == 2
    assert f"set {remote.variable}" in " ".join(done.stderr.split())


def test_a_database_made_for_a_measurement_is_gone_afterwards(kind: Kind) -> None:
    with kind.empty() as place, place.looking() as look:
        assert look.exec_driver_sql("SELECT 1").scalar() == 1
    with pytest.raises(OperationalError), place.looking():
        pass


def test_the_plan_names_every_part_that_is_asked_for() -> None:
    for _, seconds in plan(list(KINDS.values()), ["push", "growth"], TINY_RUN):
        assert list(seconds) == ["push", "growth"]
        assert all(each > 0 for each in seconds.values())

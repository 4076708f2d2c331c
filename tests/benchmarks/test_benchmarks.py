"""The benchmark programs run, and say what `make bench` promises; with sizes too small to mean anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", "--tiny", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rates(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(bench("--json", *arguments))["rates"]
    return found


def test_a_push_is_measured_beside_the_bare_loop_at_both_durabilities() -> None:
    found = rates("--only", "push", "--only", "bulk")
    assert {(each["measure"], each["system"], each["durability"]) for each in found} == {
        (measure, system, durability)
        for measure in ("single push", "bulk push")
        for system in ("taskqueue", "bare sqlite3")
        for durability in ("NORMAL", "FULL")
    }
    assert all(each["median"] > 0 and each["cpu_us"] > 0 for each in found)
    assert all((each["of_bare"] is not None) == (each["system"] == "taskqueue") for each in found)


@pytest.mark.slow
def test_a_drain_is_measured_with_one_and_two_workers_at_each_durability() -> None:
    found = rates("--only", "drain")
    ours = {(each["durability"], each["workers"]) for each in found if each["system"] == "taskqueue"}
    assert ours == {
        (durability, workers) for durability in ("NORMAL", "FULL", "FULL pushers, NORMAL node") for workers in (1, 2)
    }
    assert all(each["median"] > 0 for each in found)


@pytest.mark.slow
def test_latency_and_memory_are_read_and_judged() -> None:
    found = json.loads(bench("--json", "--only", "latency", "--only", "memory"))
    read = {(each["measure"], each["what"]) for each in found["readings"] if each["system"] == "taskqueue"}
    assert read == {
        ("idle latency", "p50"),
        ("idle latency", "p95"),
        ("idle latency", "max"),
        ("idle latency", "CPU while idle"),
        ("memory", "private, each worker"),
        ("memory", "PSS, all processes"),
    }
    assert len(found["budgets"]) == 3
    assert {each["result"] for each in found["budgets"]} <= {"goal", "pass", "short"}


def test_a_part_of_the_run_leaves_the_documents_alone() -> None:
    before = {path: path.read_bytes() for path in (ROOT / "docs" / "benchmarks").iterdir()}
    assert "single push" in bench("--only", "push")
    assert {path: path.read_bytes() for path in (ROOT / "docs" / "benchmarks").iterdir()} == before


def test_a_run_writes_its_table_between_the_marks_and_its_plot_and_json_beside(tmp_path: Path) -> None:
    begin, end = "<!-- begin: written by make bench -->", "<!-- end: written by make bench -->"
    (tmp_path / "README.md").write_text(f"above\n{begin}\nold figures\n{end}\nbelow\n")
    bench("--only", "push", "--output", str(tmp_path))
    page = (tmp_path / "README.md").read_text()
    assert page.startswith(f"above\n{begin}\n")
    assert page.endswith(f"{end}\nbelow\n")
    assert "old figures" not in page
    assert "| single push | taskqueue |  | NORMAL |" in page
    written = json.loads((tmp_path / "results.json").read_text())
    assert {"processor", "cores", "file_system", "flush_ms", "versions", "date"} <= written["machine"].keys()
    assert "--only push" in written["command"]
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")

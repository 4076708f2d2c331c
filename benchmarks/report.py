"""What a run found, as tables for the terminal and for the documents, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.budgets import Comparison, Verdict, judge_rates, judge_readings
from benchmarks.machine import Machine
from benchmarks.measure import Label, Rate, Reading, Sizes
from benchmarks.plot import draw

BEGIN, END = "<!-- begin: written by make bench -->", "<!-- end: written by make bench -->"
JSON_FILE, PAGE, PICTURE = "results.json", "README.md", "rates.png"
_RATES = ("measure", "system", "workers", "durability", "jobs/s", "min - max", "CPU us/job", "of bare", "x Huey")
_READINGS = ("measure", "system", "workers", "what", "median", "min - max")
_VERDICTS = ("budget", "wanted", "found", "result")
_STYLES = {"goal": "green", "pass": "cyan", "short": "yellow"}


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that one run found."""

    machine: Machine
    command: str
    sizes: Sizes
    seconds: float
    rates: Sequence[Rate]
    readings: Sequence[Reading]

    @property
    def verdicts(self) -> list[Verdict]:
        """Return which budgets are kept."""
        return [*judge_rates(self.rates), *judge_readings(self.readings)]


def show(findings: Findings, console: Console) -> None:
    """Print the tables."""
    console.print(_heading(findings), highlight=False)
    for title, header, rows in _tables(findings):
        if not rows:
            continue
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row, style=_STYLES.get(row[-1], ""))
        console.print(table)
    console.print(_footnote(findings), highlight=False)


def as_json(findings: Findings) -> dict[str, Any]:
    """Return the findings with their ratios."""
    comparison = Comparison(findings.rates)
    return {
        "machine": findings.machine.as_dict(),
        "command": findings.command,
        "sizes": asdict(findings.sizes),
        "seconds": round(findings.seconds, 1),
        "rates": [_rate_as_json(rate, comparison) for rate in findings.rates],
        "readings": [asdict(each.label) | _values(each) for each in findings.readings],
        "budgets": [asdict(verdict) for verdict in findings.verdicts],
    }


def write(findings: Findings, folder: Path) -> None:
    """Write JSON and plot into ``folder``, and the tables between the marks of its page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(json.dumps(as_json(findings), indent=2) + "\n")
    draw(findings.rates, folder / PICTURE)
    page = folder / PAGE
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    before, found_begin, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise ValueError(f"{page} has to contain the lines {BEGIN!r} and {END!r}, between which the tables go")
    page.write_text(f"{before}{BEGIN}\n{as_markdown(findings)}{END}{after}")


def as_markdown(findings: Findings) -> str:
    """Return the tables for the documents."""
    parts = [_heading(findings)]
    for title, header, rows in _tables(findings):
        if rows:
            lines = [f"**{title}**", "", _line(header), _line(["---"] * len(header)), *map(_line, rows)]
            parts.append("\n".join(lines))
    parts.append(_footnote(findings))
    return "\n" + "\n\n".join(parts) + "\n\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _tables(findings: Findings) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    comparison = Comparison(findings.rates)
    return [
        ("Rates", _RATES, [_rate_row(rate, comparison) for rate in findings.rates]),
        ("Latency, idling and memory", _READINGS, [_reading_row(each) for each in findings.readings]),
        ("Budgets", _VERDICTS, [[each.what, each.wanted, each.found, each.result] for each in findings.verdicts]),
    ]


def _rate_row(rate: Rate, comparison: Comparison) -> list[str]:
    bare, (huey, same_run) = comparison.over_bare(rate), comparison.over_huey(rate)
    return [
        rate.label.measure,
        _system(rate.label),
        _workers(rate.label),
        rate.label.durability,
        f"{rate.median:,.0f}",
        f"{rate.low:,.0f} - {rate.high:,.0f}",
        f"{rate.cpu_us:.0f}",
        "" if bare is None else f"{bare:.2f}",
        "" if huey is None else f"{huey:.1f}{'' if same_run else '*'}",
    ]


def _reading_row(each: Reading) -> list[str]:
    spread = "" if each.low == each.high else f"{each.low:.2f} - {each.high:.2f}"
    label = each.label
    return [label.measure, _system(label), _workers(label), each.what, f"{each.value:.2f} {each.unit}", spread]


def _system(label: Label) -> str:
    return f"{label.system}, {label.way}" if label.way else label.system


def _workers(label: Label) -> str:
    return str(label.workers) if label.workers else ""


def _rate_as_json(rate: Rate, comparison: Comparison) -> dict[str, Any]:
    huey, same_run = comparison.over_huey(rate)
    return asdict(rate.label) | {
        "median": rate.median,
        "min": round(rate.low, 1),
        "max": round(rate.high, 1),
        "cpu_us": round(rate.cpu_us, 1),
        "samples": [asdict(sample) for sample in rate.samples],
        "of_bare": comparison.over_bare(rate),
        "times_huey": huey,
        "huey_in_same_run": same_run,
    }


def _values(each: Reading) -> dict[str, Any]:
    return {"what": each.what, "median": each.value, "unit": each.unit, "min": each.low, "max": each.high}


def _heading(findings: Findings) -> str:
    machine = findings.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{machine.date}: {machine.cores} cores of {machine.processor}, {machine.memory_gib:g} GiB, {machine.system},"
        f" {machine.file_system}, a flushed 8 KiB write {machine.flush_ms:g} ms, load {machine.load:g} before the run."
        f" {versions}. Command: `{findings.command}`, {findings.seconds:.0f} s, {findings.sizes.rounds} repetition(s)."
    )


def _footnote(findings: Findings) -> str:
    text = "Median of the repetitions; CPU time of all processes of a contestant together."
    comparison = Comparison(findings.rates)
    marked = [comparison.over_huey(rate) for rate in findings.rates]
    if any(times is not None and not same_run for times, same_run in marked):
        text += " * Huey's figure comes from an earlier run on another day: `--peers` measures it in the same run."
    return text

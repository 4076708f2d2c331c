"""What a run found, as tables for the terminal and for the documents, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.budgets import Comparison, Verdict, judge_rates, judge_readings
from benchmarks.databases.kind import Kind
from benchmarks.growth import GROWTH
from benchmarks.machine import Machine
from benchmarks.measure import Label, Rate, Reading, Sizes
from benchmarks.plot import draw
from benchmarks.statements import COLUMNS, Talk, row_of

BEGIN, END = "<!-- begin: written by make bench -->", "<!-- end: written by make bench -->"
JSON_FILE, PAGE, PICTURE = "results.json", "README.md", "rates-{}.png"
_RATES = ("measure", "system", "workers", "durability", "jobs/s", "min - max", "CPU us/job", "of bare")
_HUEY = "x Huey"
_GROWN = ("drain beside", "jobs/s", "min - max", "CPU us/job", "of the first")
_READINGS = ("measure", "system", "workers", "what", "median", "min - max")
_VERDICTS = ("budget", "wanted", "found", "result")
_STYLES = {"goal": "green", "pass": "cyan", "short": "yellow"}


@dataclass(frozen=True, slots=True)
class Section:
    """What was found of one database."""

    kind: Kind
    version: str
    settings: Mapping[str, str]
    rates: list[Rate] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    talks: list[Talk] = field(default_factory=list)

    @property
    def verdicts(self) -> list[Verdict]:
        """Return which budgets are kept."""
        return [*judge_rates(self.kind, self.rates), *judge_readings(self.kind, self.readings)]

    @property
    def heading(self) -> str:
        """Return the database with its version and settings."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"{self.kind.title} {self.version}" + (f" ({settings})" if settings else "")


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that one run found."""

    machine: Machine
    command: str
    sizes: Sizes
    seconds: float
    sections: Sequence[Section]


class _Part(NamedTuple):
    title: str
    header: Sequence[str]
    rows: list[list[str]]


def show(findings: Findings, console: Console) -> None:
    """Print the tables."""
    console.print(_heading(findings), highlight=False)
    for section in findings.sections:
        console.print(f"\n[bold]{section.heading}[/bold]", highlight=False)
        for title, header, rows in _tables(section):
            table = Table(*header, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row, style=_STYLES.get(row[-1], ""))
            console.print(table)
    console.print(_footnote(findings), highlight=False)


def as_json(findings: Findings) -> dict[str, Any]:
    """Return the findings with their ratios; each figure names its database."""
    sections = findings.sections
    return {
        "machine": findings.machine.as_dict(),
        "command": findings.command,
        "sizes": asdict(findings.sizes),
        "seconds": round(findings.seconds, 1),
        "databases": [{"database": s.kind.name, "version": s.version, "settings": dict(s.settings)} for s in sections],
        "rates": [each for section in sections for each in _rates_as_json(section)],
        "readings": [_of(s) | asdict(each.label) | _values(each) for s in sections for each in s.readings],
        "statements": [asdict(talk) for section in sections for talk in section.talks],
        "budgets": [_of(section) | asdict(verdict) for section in sections for verdict in section.verdicts],
    }


def write(findings: Findings, folder: Path) -> None:
    """Write JSON and plots into ``folder``, and the tables between the marks of its page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(json.dumps(as_json(findings), indent=2) + "\n")
    for section in findings.sections:
        draw(section.kind, section.rates, folder / PICTURE.format(section.kind.name))
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
    for section in findings.sections:
        parts.append(f"### {section.kind.title}\n\n{section.heading}")
        if section.rates:
            parts.append(f"![Rates on {section.kind.title}]({PICTURE.format(section.kind.name)})")
        for title, header, rows in _tables(section):
            lines = [f"**{title}**", "", _line(header), _line(["---"] * len(header)), *map(_line, rows)]
            parts.append("\n".join(lines))
    parts.append(_footnote(findings))
    return "\n" + "\n\n".join(parts) + "\n\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _tables(section: Section) -> Iterator[_Part]:
    comparison = Comparison(section.kind, section.rates)
    huey = any(comparison.over_huey(rate)[0] is not None for rate in section.rates)
    plain = [rate for rate in section.rates if rate.label.measure != GROWTH]
    grown = [rate for rate in section.rates if rate.label.measure == GROWTH]
    parts = [
        _Part(
            "Rates", (*_RATES, _HUEY) if huey else _RATES, [_rate_row(rate, comparison, huey=huey) for rate in plain]
        ),
        _Part("Growth", _GROWN, [_grown_row(rate, comparison) for rate in grown]),
        _Part("Latency, idling and memory", _READINGS, [_reading_row(each) for each in section.readings]),
        _Part("Statements a call", COLUMNS, [row_of(each) for each in section.talks]),
        _Part("Budgets", _VERDICTS, [[each.what, each.wanted, each.found, each.result] for each in section.verdicts]),
    ]
    return (part for part in parts if part.rows)


def _rate_row(rate: Rate, comparison: Comparison, *, huey: bool) -> list[str]:
    bare, (times, same_run) = comparison.over_bare(rate), comparison.over_huey(rate)
    row = [
        rate.label.measure,
        _system(rate.label),
        _workers(rate.label),
        rate.label.durability,
        *_figures(rate),
        "" if bare is None else f"{bare:.2f}",
    ]
    return [*row, "" if times is None else f"{times:.1f}{'' if same_run else '*'}"] if huey else row


def _grown_row(rate: Rate, comparison: Comparison) -> list[str]:
    share = comparison.over_alone(rate)
    return [rate.label.way, *_figures(rate), "" if share is None else f"{share:.2f}"]


def _figures(rate: Rate) -> list[str]:
    server = f" + {rate.server_us:.0f}" if rate.server_us else ""
    return [f"{rate.median:,.0f}", f"{rate.low:,.0f} - {rate.high:,.0f}", f"{rate.cpu_us:.0f}{server}"]


def _reading_row(each: Reading) -> list[str]:
    spread = "" if each.low == each.high else f"{each.low:.2f} - {each.high:.2f}"
    label = each.label
    return [label.measure, _system(label), _workers(label), each.what, f"{each.value:.2f} {each.unit}", spread]


def _system(label: Label) -> str:
    return f"{label.system}, {label.way}" if label.way else label.system


def _workers(label: Label) -> str:
    return str(label.workers) if label.workers else ""


def _of(section: Section) -> dict[str, Any]:
    return {"database": section.kind.name}


def _rates_as_json(section: Section) -> Iterator[dict[str, Any]]:
    comparison = Comparison(section.kind, section.rates)
    for rate in section.rates:
        huey, same_run = comparison.over_huey(rate)
        found = {
            "median": rate.median,
            "min": round(rate.low, 1),
            "max": round(rate.high, 1),
            "cpu_us": round(rate.cpu_us, 1),
            "server_us": round(rate.server_us, 1),
            "samples": [asdict(sample) for sample in rate.samples],
            "of_bare": comparison.over_bare(rate),
            "of_alone": comparison.over_alone(rate),
            "times_huey": huey,
            "huey_in_same_run": same_run,
        }
        yield _of(section) | asdict(rate.label) | found


def _values(each: Reading) -> dict[str, Any]:
    return {"what": each.what, "median": each.value, "unit": each.unit, "min": each.low, "max": each.high}


def _heading(findings: Findings) -> str:
    machine, sizes = findings.machine, findings.sizes
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{machine.date}: {machine.cores} cores of {machine.processor}, {machine.memory_gib:g} GiB, {machine.system},"
        f" {machine.file_system}, a flushed 8 KiB write {machine.flush_ms:g} ms, load {machine.load:g} before the run."
        f" {versions}. Command: `{findings.command}`, {findings.seconds:.0f} s, {sizes.rounds} repetition(s), of growth"
        f" {sizes.growth_rounds}."
    )


def _footnote(findings: Findings) -> str:
    text = "Median of the repetitions. CPU time is that of all processes of a contestant together + that of the server."
    for section in findings.sections:
        comparison = Comparison(section.kind, section.rates)
        marked = [comparison.over_huey(rate) for rate in section.rates]
        if any(times is not None and not same_run for times, same_run in marked):
            text += " * Huey's figure comes from an earlier run on another day: `--peers` measures it in the same run."
    return text

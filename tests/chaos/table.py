"""Write the tables of docs/chaos.md from the reports in docs/chaos: ``python -m tests.chaos.table``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "chaos.md"
BEGIN, END = "<!-- tables: python -m tests.chaos.table -->", "<!-- end of tables -->"

_NONE = 'No report is in `docs/chaos` yet: `make chaos CHAOS="--report docs/chaos/NAME.json"` writes one.\n'


def main() -> None:
    """Put the tables between their marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    files = sorted((DOCS / "chaos").glob("*.json"))
    reports = [report for file in files for report in json.loads(file.read_text(encoding="utf-8"))]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(reports)}\n{END}{after}", encoding="utf-8")


def tables(reports: Sequence[dict[str, Any]]) -> str:
    """Return the tables: the storms, their invariants, the recoveries, the mutants."""
    storms = [each for each in reports if not each["settings"]["mutant"]]
    mutants = [each for each in reports if each["settings"]["mutant"]]
    parts = [_storms(storms), _invariants(storms), _recoveries(storms)] if storms else []
    parts += [_mutants(mutants)] if mutants else []
    return "\n".join(parts) or _NONE


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _names(storms: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{each['versions']['database']}, seed {each['settings']['seed']}" for each in storms]


def _storms(storms: Sequence[dict[str, Any]]) -> str:
    kinds = sorted({kind for each in storms for kind in each["faults"]})
    causes = sorted({cause for each in storms for cause in each["second_starts"]})
    rows: list[list[object]] = [
        ["jobs", *(f"{each['jobs']['pushed']:,}" for each in storms)],
        ["nodes at a time, in all", *(f"{each['settings']['nodes']}, {each['starts']['nodes']}" for each in storms)],
        ["seconds", *(each["seconds"] for each in storms)],
        ["starts", *(f"{each['starts']['starts']:,}" for each in storms)],
        ["jobs started more than once", *(each["starts"]["jobs started more than once"] for each in storms)],
        ["self-stops", *(each["self_stops"] for each in storms)],
        ["nodes declared dead", *(each["declared_dead"] for each in storms)],
        ["stale writes, all dropped", *(each["stale_writes"] for each in storms)],
        *([f"fault: {kind}", *(each["faults"].get(kind, 0) for each in storms)] for kind in kinds),
        *([f"started again: {cause}", *(each["second_starts"].get(cause, 0) for each in storms)] for cause in causes),
        ["broken invariants", *(", ".join(each["broken"]) or "none" for each in storms)],
    ]
    return _table(["", *_names(storms)], rows)


def _invariants(storms: Sequence[dict[str, Any]]) -> str:
    def cell(verdict: dict[str, Any]) -> str:
        if not verdict["there"]:
            return "not there yet"
        looked = ", ".join(f"{name} {number:,}" for name, number in verdict["looked_at"].items() if number)
        return f"{'broken ' + str(verdict['broken']) if verdict['broken'] else 'holds'} ({looked})"

    by_name = [{verdict["name"]: verdict for verdict in each["invariants"]} for each in storms]
    rows = [
        [
            f"{name}: {verdict['promise']}",
            *(cell(each[name]) if name != "I3" else _short(each[name]) for each in by_name),
        ]
        for name, verdict in by_name[0].items()
    ]
    return _table(["invariant", *_names(storms)], rows)


def _short(verdict: dict[str, Any]) -> str:
    state = f"broken {verdict['broken']}" if verdict["broken"] else "holds"
    return f"{state} (second starts {verdict['looked_at']['second starts']:,}, by cause above)"


def _recoveries(storms: Sequence[dict[str, Any]]) -> str:
    def cell(spread: dict[str, Any] | None) -> str:
        if not spread or not spread["times"]:
            return ""
        return f"{spread['median']} / {spread['longest']} ({spread['times']})"

    rows = []
    for where, words in (("recovery_in_calm", "in calm"), ("recovery_in_the_storm", "in the storm")):
        names = dict.fromkeys(name for each in storms for name in each[where])
        rows += [[f"{name}, {words}", *(cell(each[where].get(name)) for each in storms)] for name in names]
    return _table(["seconds: median / longest (times)", *_names(storms)], rows)


def _mutants(mutants: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            each["settings"]["mutant"],
            each["versions"]["database"],
            ", ".join(each["broken"]) or "NOTHING",
            each["seconds"],
        ]
        for each in mutants
    ]
    return _table(["mutant", "on", "invariants that it broke", "seconds"], rows)


if __name__ == "__main__":
    main()

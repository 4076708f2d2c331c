"""What counts as goal, pass and short; and that the page shows the figures that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.budgets import Comparison, judge_rates, judge_readings
from benchmarks.latency import percentile
from benchmarks.measure import BARE, HUEY, OURS, Contestant, Label, Rate, Reading, Sample, interleaved

DOCUMENTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


def rate(system: str, per_second: int, way: str = "") -> Rate:
    return Rate(Label("drain", system, "FULL", 1, way), (Sample(per_second, 1.0, 0.5),))


@pytest.mark.parametrize(
    ("ours", "result"),
    [(59, "short"), (60, "pass"), (120, "goal")],
)
def test_a_drain_passes_at_three_times_huey_and_reaches_its_goal_at_six_tenths_of_the_bare_loop(
    ours: int, result: str
) -> None:
    rates = [rate(OURS, ours), rate(HUEY, 20), rate(BARE, 200, "100 a claim")]
    (verdict,) = judge_rates(rates)
    assert verdict.result == result


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_minute_does_not_decide() -> None:
    ours = Rate(Label("drain", OURS, "FULL", 1), (Sample(100, 1.0, 0.5), Sample(10, 1.0, 0.5), Sample(100, 1.0, 0.5)))
    bare = Rate(
        Label("drain", BARE, "FULL", 1, "100 a claim"),
        (Sample(200, 1.0, 0.5), Sample(20, 1.0, 0.5), Sample(20, 1.0, 0.5)),
    )
    assert Comparison([ours, bare]).over_bare(ours) == 0.5


def test_a_figure_of_huey_from_another_day_is_called_so() -> None:
    (verdict,) = judge_rates([rate(OURS, 100), rate(BARE, 200, "100 a claim")])
    assert "measured earlier" in verdict.found


@pytest.mark.parametrize(("milliseconds", "result"), [(9.0, "goal"), (11.0, "pass"), (26.0, "short")])
def test_latency_is_judged_at_its_95th_percentile(milliseconds: float, result: str) -> None:
    label = Label("idle latency", OURS, "FULL", 1)
    readings = [Reading(label, what, milliseconds, "ms", 1.0, 30.0) for what in ("p50", "p95", "max")]
    assert [verdict.result for verdict in judge_readings(readings)] == [result]


def test_contestants_are_measured_in_turns_and_another_one_first_each_round() -> None:
    order: list[str] = []

    def contestant(name: str) -> Contestant:
        def run(_folder: Path) -> Sample:
            order.append(name)
            return Sample(1, 1.0, 1.0)

        return Contestant(Label("turns", name, "NORMAL"), run)

    rates = interleaved([contestant("a"), contestant("b")], 3, lambda _label: None)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(each.samples) for each in rates] == [3, 3]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile(range(1, 101), 0.95) == 96
    assert percentile([5.0], 0.95) == 5.0


def test_the_page_shows_the_figures_of_the_run_whose_json_lies_beside_it() -> None:
    page = (DOCUMENTS / "README.md").read_text()
    written = json.loads((DOCUMENTS / "results.json").read_text())
    assert written["machine"]["date"] in page
    missing = [each for each in written["rates"] if f"| {each['median']:,.0f} |" not in page]
    assert not missing

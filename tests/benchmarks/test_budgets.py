"""What counts as goal, pass and short; and that the page shows the figures that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.budgets import Comparison, judge_rates, judge_readings
from benchmarks.databases import KINDS
from benchmarks.databases.kind import Kind
from benchmarks.latency import percentile
from benchmarks.measure import HUEY, OURS, Contestant, Label, Rate, Reading, Sample, interleaved

DOCUMENTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
BESIDE_HUEY = next(each for each in KINDS.values() if each.limits.over_huey is not None)
OTHERS = [each for each in KINDS.values() if each.limits.over_huey is None]
BARE = BESIDE_HUEY.bare_name
EVERY_KIND = pytest.mark.parametrize("judged", list(KINDS.values()), ids=lambda each: each.name)


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
    (verdict,) = judge_rates(BESIDE_HUEY, rates)
    assert verdict.result == result


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_minute_does_not_decide() -> None:
    ours = Rate(Label("drain", OURS, "FULL", 1), (Sample(100, 1.0, 0.5), Sample(10, 1.0, 0.5), Sample(100, 1.0, 0.5)))
    bare = Rate(
        Label("drain", BARE, "FULL", 1, "100 a claim"),
        (Sample(200, 1.0, 0.5), Sample(20, 1.0, 0.5), Sample(20, 1.0, 0.5)),
    )
    assert Comparison(BESIDE_HUEY, [ours, bare]).over_bare(ours) == 0.5


def test_a_figure_of_huey_from_another_day_is_called_so() -> None:
    (verdict,) = judge_rates(BESIDE_HUEY, [rate(OURS, 100), rate(BARE, 200, "100 a claim")])
    assert "measured earlier" in verdict.found


def share_of_bare(kind: Kind, measure: str, share: float, way: str = "", workers: int = 1) -> list[Rate]:
    durability = kind.equal_durabilities()[0].name
    ours = Rate(Label(measure, OURS, durability, workers), (Sample(1_000, 1.0 / share, 0.5),))
    return [ours, Rate(Label(measure, kind.bare_name, durability, workers, way), (Sample(1_000, 1.0, 0.5),))]


@pytest.mark.parametrize("judged", OTHERS, ids=lambda each: each.name)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_drain_without_that_peer_is_judged_by_the_bare_loop_alone(judged: Kind, workers: int) -> None:
    least, goal = judged.limits.drain[workers]
    found = {
        share: next(judge_rates(judged, share_of_bare(judged, "drain", share, "100 a claim", workers))).result
        for share in (least - 0.01, least + 0.01, goal + 0.01)
    }
    assert list(found.values()) == ["short", "pass", "goal"]


@EVERY_KIND
def test_a_push_is_judged_by_the_bare_insert(judged: Kind) -> None:
    goal = judged.limits.push_goal
    found = [next(judge_rates(judged, share_of_bare(judged, "single push", goal + by))).result for by in (-0.01, 0.01)]
    assert found == ["short", "goal"]


@EVERY_KIND
@pytest.mark.parametrize(
    ("way", "share", "result"),
    [
        ("500,000 jobs waiting behind", 0.84, "short"),
        ("500,000 jobs waiting behind", 0.86, "pass"),
        ("500,000 jobs waiting behind", 0.96, "goal"),
        ("a transaction left open", 0.81, "pass"),
    ],
)
def test_growth_is_judged_by_the_figure_beside_nothing(judged: Kind, way: str, share: float, result: str) -> None:
    rates = [
        Rate(Label("drain beside", OURS, judged.default.name, 1, each), (Sample(100, 1.0 / of, 0.5),))
        for each, of in (("nothing else", 1.0), (way, share))
    ]
    assert [verdict.result for verdict in judge_rates(judged, rates)] == [result]


@EVERY_KIND
def test_latency_is_judged_at_its_95th_percentile(judged: Kind) -> None:
    most, goal = judged.limits.latency_p95_ms
    label = Label("idle latency", OURS, judged.default.beside, 1)
    found = []
    for milliseconds in (goal - 1, goal + 1, most + 1):
        readings = [Reading(label, what, milliseconds, "ms", 1.0, 30.0) for what in ("p50", "p95", "max")]
        found += [verdict.result for verdict in judge_readings(judged, readings)]
    assert found == ["goal", "pass", "short"]


def test_contestants_are_measured_in_turns_and_another_one_first_each_round() -> None:
    order: list[str] = []

    def contestant(name: str) -> Contestant:
        def run() -> Sample:
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

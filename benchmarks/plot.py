"""The rates of a database as a picture: a panel a measure, bars grouped by durability, with their spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.databases.kind import Kind
from benchmarks.growth import ALONE, GROWTH
from benchmarks.measure import OURS, Rate

_OURS, _BARE, _OTHER = "#1f6f8b", "#b8b8b8", "#d98e04"
Place = Callable[[Rate], Any]


def draw(kind: Kind, rates: Sequence[Rate], path: Path) -> None:
    """Draw the rates into a PNG file; nothing where there are none."""
    if not rates:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    measures = list(dict.fromkeys(rate.label.measure for rate in rates))
    heights = [sum(rate.label.measure == measure for rate in rates) + 1.5 for measure in measures]
    figure, panels = plt.subplots(
        len(measures), 1, figsize=(9, 0.32 * sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for panel, measure in zip(panels.flat, measures, strict=True):
        _draw_panel(panel, kind, measure, [rate for rate in rates if rate.label.measure == measure])
    figure.suptitle(kind.title, fontsize=11)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_panel(panel: Any, kind: Kind, measure: str, rates: Sequence[Rate]) -> None:
    colours = {OURS: _OURS, kind.bare_name: _BARE}
    ordered = sorted(rates, key=_place_in(kind))
    medians = [rate.median for rate in ordered]
    spread = [[rate.median - rate.low for rate in ordered], [rate.high - rate.median for rate in ordered]]
    bars = panel.barh(
        [_name(rate) for rate in ordered],
        medians,
        xerr=spread,
        color=[colours.get(rate.label.system, _OTHER) for rate in ordered],
        ecolor="#444444",
    )
    panel.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=6, fontsize=8)
    panel.set_title(f"{measure}, jobs a second", loc="left", fontsize=10)
    panel.tick_params(labelsize=8)
    panel.margins(x=0.15)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)


def _place_in(kind: Kind) -> Place:
    """Return where a bar stands: by durability, within one ours first and then by name."""
    order = {each.name: number for number, each in enumerate(kind.durabilities)}

    def place(rate: Rate) -> tuple[int, bool, int, str, bool]:
        label = rate.label
        return order[label.durability], label.system != OURS, label.workers, label.system, label.way != ALONE

    return place


def _name(rate: Rate) -> str:
    label = rate.label
    if label.measure == GROWTH:
        return label.way
    workers = f"{label.workers} worker{'s' if label.workers > 1 else ''}" if label.workers else ""
    return ", ".join([*filter(None, [label.system, label.way, workers]), label.durability])

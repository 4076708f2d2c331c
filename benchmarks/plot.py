"""The rates as a picture: one panel a measure, bars grouped by durability, with the spread of the repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import BARE, OURS, Rate

_COLOURS = {OURS: "#1f6f8b", BARE: "#b8b8b8"}
_OTHER = "#d98e04"


def draw(rates: Sequence[Rate], path: Path) -> None:
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
        _draw_panel(panel, measure, [rate for rate in rates if rate.label.measure == measure])
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_panel(panel: Any, measure: str, rates: Sequence[Rate]) -> None:
    ordered = sorted(rates, key=_place)
    medians = [rate.median for rate in ordered]
    spread = [
        [rate.median - rate.low for rate in ordered],
        [rate.high - rate.median for rate in ordered],
    ]
    colours = [_COLOURS.get(rate.label.system, _OTHER) for rate in ordered]
    bars = panel.barh([_name(rate) for rate in ordered], medians, xerr=spread, color=colours, ecolor="#444444")
    panel.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=6, fontsize=8)
    panel.set_title(f"{measure}, jobs a second", loc="left", fontsize=10)
    panel.tick_params(labelsize=8)
    panel.margins(x=0.15)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)


def _place(rate: Rate) -> tuple[bool, bool, bool, int, str]:
    """Return where a bar stands: NORMAL first and plain FULL last, within them ours first and the bare loop last."""
    label = rate.label
    return label.durability != "NORMAL", label.durability == "FULL", label.system != OURS, label.workers, label.system


def _name(rate: Rate) -> str:
    label = rate.label
    parts = [
        label.system,
        label.way,
        f"{label.workers} worker{'s' if label.workers > 1 else ''}" if label.workers else "",
    ]
    return ", ".join([*filter(None, parts), label.durability])

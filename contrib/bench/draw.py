"""The figures of a report as pictures: ratios beside their bars, and how costs grow. Needs matplotlib."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from report import Report, ratio
from work import SECONDS

COLOURS = {"virtd": "#1f6f8b", "libvirtd": "#b0b0b0"}
FORMATS = ("svg", "png")


def ratios(report: Report, path: Path) -> None:
    """One bar for each piece of work, libvirtd being 1."""
    works = [found for found in report.works.values() if found["unit"] == SECONDS]
    rows = [(found["text"], ratio(found), found["bar"]) for found in works]
    drawn = [(text, value, bar) for text, value, bar in rows if value][::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(drawn) + 1.2))
    for place, (_, value, bar) in enumerate(drawn):
        axes.barh(place, value, color=COLOURS["virtd"], height=0.6)
        axes.annotate(f" {value:.2g}", (value, place), va="center", fontsize=8)
        if bar:
            axes.plot([bar, bar], [place - 0.4, place + 0.4], color="black", linewidth=1.5)
    axes.set_yticks(range(len(drawn)), [text for text, _, _ in drawn], fontsize=8)
    axes.axvline(1, color=COLOURS["libvirtd"], linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("virtd / libvirtd; the black marks are the bars that virtd is to stay below")
    _save(figure, path)


def growth(report: Report, path: Path) -> None:
    """A panel for each series: cost over the number of guests."""
    found = list(report.series.values())
    columns = 5
    lines = -(-len(found) // columns)
    figure, panels = pyplot.subplots(lines, columns, figsize=(3 * columns, 2.6 * lines), squeeze=False)
    for panel in panels.flat[len(found) :]:
        panel.set_visible(False)
    for panel, series in zip(panels.flat, found, strict=False):
        _panel(panel, series)
    panels.flat[0].legend(fontsize=8)
    _save(figure, path)


def _panel(panel: Any, series: dict[str, Any]) -> None:
    sizes = [int(size) for size in series["sizes"]]
    for name, colour in COLOURS.items():
        medians = [statistics.median(figures[name]) * 1e3 for figures in series["sizes"].values()]
        panel.plot(sizes, medians, "o-", color=colour, label=name, markersize=4)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(series["text"], fontsize=9)
    panel.set_xlabel(f"{series['of']} guests", fontsize=8)
    panel.set_ylabel("ms", fontsize=8)
    for axis, ticks in ((panel.xaxis, sizes), (panel.yaxis, None)):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
        if ticks:
            axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.tick_params(labelsize=7)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    for kind in FORMATS:
        # Without dates inside, equal figures give equal files.
        figure.savefig(path.with_suffix(f".{kind}"), dpi=110, metadata={"Date": None} if kind == "svg" else None)
    pyplot.close(figure)


def draw(report: Report, directory: Path) -> None:
    """Write ratios.svg, growth.svg and the same as PNG."""
    matplotlib.rcParams["svg.hashsalt"] = "virtd"
    if report.works:
        ratios(report, directory / "ratios")
    if report.series:
        growth(report, directory / "growth")

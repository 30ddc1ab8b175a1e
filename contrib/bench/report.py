"""What was measured, as text and as JSON: medians, spreads, ratios, and the bars they are held against."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import libvirt
from work import BYTES, SECONDS, Series, Work

Figures = dict[str, list[float]]  # by server


def amount(value: float, unit: str = SECONDS) -> str:
    """A figure for people."""
    if unit == SECONDS:
        for name, factor in (("s", 1), ("ms", 1e3)):
            if value * factor >= 1:
                return f"{value * factor:.3g} {name}"
        return f"{value * 1e6:.3g} µs"
    return f"{value / 2**20:.3g} MiB" if unit == BYTES else f"{value:.3g}"


def ratio(figures: Figures) -> float | None:
    """virtd's median divided by libvirtd's."""
    ours, theirs = (statistics.median(figures[name]) for name in ("virtd", "libvirtd"))
    return ours / theirs if theirs else None


def _cell(taken: list[float], unit: str) -> str:
    low, high = amount(min(taken), unit), amount(max(taken), unit)
    middle = amount(statistics.median(taken), unit)
    return middle if low == high else f"{middle} ({low} to {high})"


def _row(found: dict[str, Any], text: str, figures: Figures) -> str:
    unit, limit = found.get("unit", SECONDS), found.get("limit")
    quotient = ratio(figures) if limit is None else None
    bar = f"{found['bar']:g}" if found["bar"] else "" if limit is None else amount(limit, unit)
    cells = [text, *(_cell(figures[name], unit) for name in ("virtd", "libvirtd"))]
    cells += ["" if quotient is None else f"{quotient:.2g}", bar and f"≤ {bar}"]
    return f"| {' | '.join(cells)} |"


HEAD = "| work | virtd | libvirtd | ratio | bar |\n|---|---|---|---|---|"


class Report:
    """Everything that one run measured."""

    def __init__(self, rounds: int) -> None:
        self.machine = {
            "date": time.strftime("%Y-%m-%d"),
            "processors": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "libvirt": libvirt.getVersion(),
            "rounds": rounds,
        }
        self.works: dict[str, dict[str, Any]] = {}
        self.series: dict[str, dict[str, Any]] = {}
        self.alone: dict[str, float] = {}

    def add(self, work: Work, figures: Figures) -> None:
        """Tell the figures of one piece of work."""
        told = {"text": work.text, "unit": work.unit, "bar": work.bar, "limit": work.limit}
        self.works[work.name] = told | figures

    def add_size(self, of: str, series: Series, size: int, figures: Figures) -> None:
        """Tell the figures of one piece of work at one size."""
        found = self.series.setdefault(series.name, {"text": series.text, "of": of, "bar": series.bar, "sizes": {}})
        found["sizes"][str(size)] = figures

    def text(self) -> str:
        """All of it, in Markdown."""
        machine = self.machine
        lines = [
            f"{machine['date']}, {machine['processors']} CPUs, Linux {machine['kernel']}, Python {machine['python']}, "
            f"libvirt {machine['libvirt']}; medians of {machine['rounds']} rounds (lowest to highest).",
            "",
        ]
        if self.works:
            lines += [HEAD, *self._works(), ""]
        for of in dict.fromkeys(found["of"] for found in self.series.values()):
            lines += [f"With so many {of} guests:", "", HEAD, *self._sizes(of), ""]
        if self.alone:
            lines += ["virtd alone:", "", "| what | |\n|---|---|"]
            lines += [f"| {text} | {amount(value)} |" for text, value in self.alone.items()]
        return "\n".join(lines).rstrip() + "\n"

    def _works(self) -> Iterable[str]:
        for found in self.works.values():
            yield _row(found, found["text"], found)

    def _sizes(self, of: str) -> Iterable[str]:
        for found in self.series.values():
            if found["of"] == of:
                for size, figures in found["sizes"].items():
                    yield _row(found, f"{int(size):,}: {found['text']}", figures)

    def write(self, path: Path) -> None:
        """Keep all figures as JSON."""
        path.write_text(json.dumps(vars(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Report":
        """What write() wrote."""
        made = cls(0)
        vars(made).update(json.loads(path.read_text(encoding="utf-8")))
        return made

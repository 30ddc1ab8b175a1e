"""virtsh top: what running guests use, again and again, with the last minutes as sparklines.

What a server cannot tell is left out: without the call for statistics there are no disks and networks in the table.
"""

from __future__ import annotations

import gc
import json
import os
import select
import sys
import time

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import states, terminal, units
from virtd.shell.output import Style, style, visible, width
from virtd.shell.session import Session
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPARKS = "▁▂▃▄▅▆▇█"
_KEPT = 20  # samples in a sparkline
_STATS = (
    c.VIR_DOMAIN_STATS_STATE
    | c.VIR_DOMAIN_STATS_CPU_TOTAL
    | c.VIR_DOMAIN_STATS_BALLOON
    | c.VIR_DOMAIN_STATS_VCPU
    | c.VIR_DOMAIN_STATS_INTERFACE
    | c.VIR_DOMAIN_STATS_BLOCK
)


class Sample(NamedTuple):
    """What a guest had used at some time. Bytes and nanoseconds count up; None: nobody could say."""

    name: str
    number: int
    state: str
    vcpus: int
    cpu_ns: int
    memory_kib: int
    read: int | None
    written: int | None
    received: int | None
    sent: int | None


class Line(NamedTuple):
    """What a guest uses: the difference between two samples."""

    sample: Sample
    cpu: float  # percent of one host CPU
    read: float | None  # bytes/s, as the three after it
    written: float | None
    received: float | None
    sent: float | None


def samples(session: Session) -> list[Sample]:
    """What all running guests have used up to now."""
    flags = c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    try:
        records = session.call("connect_get_all_domain_stats", [], _STATS, flags)
    except VirtError as error:
        if error.code not in (c.VIR_ERR_NO_SUPPORT, c.VIR_ERR_INVALID_ARG):
            raise
        return _plain_samples(session)
    return [_sample(record.dom, {one.field: one.value.value for one in record.params}) for record in records]


def _sample(domain: Any, values: dict[str, Any]) -> Sample:
    return Sample(
        domain.name,
        domain.id,
        states.domain(values.get("state.state", c.VIR_DOMAIN_NOSTATE)),
        values.get("vcpu.current", 0),
        values.get("cpu.time", 0),
        values.get("balloon.rss", values.get("balloon.current", 0)),
        _sum(values, "block", "rd.bytes"),
        _sum(values, "block", "wr.bytes"),
        _sum(values, "net", "rx.bytes"),
        _sum(values, "net", "tx.bytes"),
    )


def _sum(values: dict[str, Any], group: str, field: str) -> int | None:
    """A counter of all devices of a kind."""
    count = values.get(f"{group}.count")
    if count is None:
        return None
    return int(sum(values.get(f"{group}.{number}.{field}", 0) for number in range(count)))


def _plain_samples(session: Session) -> list[Sample]:
    """The same, of a server that only knows guests one by one."""
    found = []
    for domain in session.call("connect_list_all_domains", 1, c.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[0]:
        try:
            state, _, memory, vcpus, cpu = session.call("domain_get_info", domain)
        except VirtError as error:
            if error.code != c.VIR_ERR_NO_DOMAIN:
                raise
            continue  # it has gone since
        found.append(Sample(domain.name, domain.id, states.domain(state), vcpus, cpu, memory, None, None, None, None))
    return found


def lines_of(before: dict[str, Sample], now: list[Sample], seconds: float) -> list[Line]:
    """What guests used between two looks.

    Args:
        before: the samples of the last look, by name.
        now: those of this one.
        seconds: the time between the two.
    """
    found = []
    for sample in now:
        last = before.get(sample.name)
        if last is None or last.number != sample.number or seconds <= 0:
            last = sample  # it has just been started: there is nothing to compare yet

        def rate(field: str, one: Sample = sample, other: Sample = last) -> float | None:
            new, old = getattr(one, field), getattr(other, field)
            return None if new is None or old is None or seconds <= 0 else max(0, new - old) / seconds

        cpu = rate("cpu_ns") or 0.0
        rates = [rate(field) for field in ("read", "written", "received", "sent")]
        found.append(Line(sample, cpu / 1e7, *rates))
    return found


def sparkline(history: list[float], most: float) -> str:
    """Numbers as a row of bars, as high as their share of `most`."""
    if most <= 0:
        return _SPARKS[0] * len(history)
    last = len(_SPARKS) - 1
    return "".join(_SPARKS[min(last, round(number / most * last))] for number in history)


_ORDERS = {
    "c": ("CPU", lambda line: -line.cpu),
    "m": ("memory", lambda line: -line.sample.memory_kib),
    "d": ("disk", lambda line: -((line.read or 0) + (line.written or 0))),
    "n": ("network", lambda line: -((line.received or 0) + (line.sent or 0))),
    "i": ("id", lambda line: line.sample.number),
}


class Screen:
    """The table, and what it remembers from one look to the next."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.order = "c"
        self._before: dict[str, Sample] = {}
        self._when = 0.0
        self._history: dict[str, list[float]] = {}

    def look(self) -> list[Line]:
        """Take another look at the guests."""
        now, found = time.monotonic(), samples(self.session)
        lines = lines_of(self._before, found, now - self._when if self._before else 0.0)
        self._before, self._when = {sample.name: sample for sample in found}, now
        self._history = {
            line.sample.name: [*self._history.get(line.sample.name, []), line.cpu][-_KEPT:] for line in lines
        }
        return sorted(lines, key=_ORDERS[self.order][1])

    def text(self, lines: list[Line], marks: Style, columns: int, rows: int) -> str:
        """The table, not larger than the terminal."""
        cpu, memory = sum(line.cpu for line in lines), sum(line.sample.memory_kib for line in lines)
        size, unit = units.pretty(memory * 1024)
        clock = time.strftime("%H:%M:%S")
        guests = f"{len(lines)} guest{'' if len(lines) == 1 else 's'}"
        head = f"{clock}  {guests}  CPU {cpu:.0f} %  memory {size:.1f} {unit}  {self.session.uri}"
        keys = f"sorted by {_ORDERS[self.order][0]}; c m d n i sort, q ends"
        titles = ["Id", "Name", "State", "CPU %", f"{'last':<{_KEPT}}", "Memory"]
        rated = any(line.read is not None or line.received is not None for line in lines)
        titles += ["Read/s", "Write/s", "Rx/s", "Tx/s"] if rated else []
        table = [titles, *(self._cells(line, rated=rated) for line in lines)]
        widths = [max(width(row[i]) for row in table) for i in range(len(titles))]
        shown = []
        for number, row in enumerate(table[: max(1, rows - 3)]):
            text = "  ".join(_pad(cell, widths[i], left=i in (1, 2, 4)) for i, cell in enumerate(row)).rstrip()
            text = text[:columns]
            shown.append(marks.mark(text, Style.BOLD) if number == 0 else text)
        return "\n".join([head[:columns], marks.mark(keys[:columns], Style.DIM), *shown]) + "\n"

    def _cells(self, line: Line, *, rated: bool) -> list[str]:
        sample = line.sample
        size, unit = units.pretty(sample.memory_kib * 1024)
        history = self._history.get(sample.name, [])
        cells = [
            str(sample.number),
            visible(sample.name),
            sample.state,
            f"{line.cpu:.1f}",
            sparkline(history, max([100.0 * max(sample.vcpus, 1), *history])),
            f"{size:.0f} {unit}",
        ]
        if rated:
            cells += [_rate(one) for one in (line.read, line.written, line.received, line.sent)]
        return cells


def _pad(cell: str, space: int, *, left: bool) -> str:
    blanks = " " * (space - width(cell))
    return cell + blanks if left else blanks + cell


def _rate(number: float | None) -> str:
    if number is None:
        return "-"
    size, unit = units.pretty(number)
    return f"{size:.0f} {unit}"


def run(session: Session, delay: int, count: int | None) -> None:
    """Show the table until the user has seen enough.

    Args:
        session: whose guests.
        delay: seconds between two looks.
        count: after how many looks to stop; None: never.
    """
    gc.enable()
    screen = Screen(session)
    if session.json or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _print(screen, delay, count or 1)
        return
    keyboard, marks = terminal.require(), style()
    try:
        with terminal.Raw(keyboard, output=False):
            sys.stdout.write("\033[?1049h\033[?25l")  # a screen of its own, without cursor
            try:
                while count is None or count > 0:
                    columns, rows = terminal.size()
                    sys.stdout.write(
                        "\033[H" + screen.text(screen.look(), marks, columns, rows).replace("\n", "\033[K\n")
                    )
                    sys.stdout.write("\033[J")
                    sys.stdout.flush()
                    count = None if count is None else count - 1
                    if not _key(screen, keyboard, delay):
                        break
            finally:
                sys.stdout.write("\033[?25h\033[?1049l")
                sys.stdout.flush()
    except terminal.Interrupted:
        pass


def _key(screen: Screen, keyboard: int, delay: int) -> bool:
    """Wait for the next look, or for a key; whether to go on."""
    if not select.select([keyboard], [], [], delay)[0]:
        return True
    typed = os.read(keyboard, 64).decode(errors="replace")
    if not typed or typed[0] in "qQ\x03\x04\x1b":
        return False
    if typed[0] in _ORDERS:
        screen.order = typed[0]
    return True


def _print(screen: Screen, delay: int, count: int) -> None:
    """The table for a pipe: `count` times, after a first look that there is something to compare with."""
    session = screen.session
    lines = screen.look()
    for _ in range(count):
        select.select([], [], [], delay)
        lines = screen.look()
        if session.json:
            session.write(json.dumps([_data(line) for line in lines]) + "\n")
        else:
            session.write(screen.text(lines, Style(False), 1000, 1 << 30))
        sys.stdout.flush()


def _data(line: Line) -> dict[str, Any]:
    sample = line.sample
    rates = {name: getattr(line, name) for name in ("read", "written", "received", "sent")}
    return {
        "id": sample.number,
        "name": sample.name,
        "state": sample.state,
        "vcpus": sample.vcpus,
        "cpu_percent": round(line.cpu, 1),
        "memory_kib": sample.memory_kib,
        **{f"{name}_bytes_per_s": None if rate is None else round(rate) for name, rate in rates.items()},
    }

"""How far long work has come: a line on a terminal, redrawn in place, and gone when the work is done.

Nothing is written where standard error is no terminal.
"""

from __future__ import annotations

import sys
import time

from virtd.shell import terminal, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_INTERVAL = 0.1  # seconds between two drawings


class Progress:
    """A context that shows how much of something is done.

    Args:
        what: what is going on.
        total: how much there is to do in bytes; 0 if nobody knows.
    """

    def __init__(self, what: str, total: int = 0) -> None:
        self._what = what
        self._total = total
        self._begin = time.monotonic()
        self._drawn = 0.0
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, done: int) -> None:
        """Draw the line, if the last time was long enough ago.

        Args:
            done: how much has been done, in bytes.
        """
        now = time.monotonic()
        if not self._shown or now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        columns, _ = terminal.size(2)
        sys.stderr.write("\r" + line(self._what, done, self._total, now - self._begin, columns - 1) + "\033[K")
        sys.stderr.flush()


def line(what: str, done: int, total: int, seconds: float, columns: int) -> str:
    """The line that shows how much of something is done.

    Args:
        what: what is going on.
        done, total: in bytes; a total of 0 is not known.
        seconds: since it began.
        columns: how wide the line may be.
    """
    size, unit = units.pretty(done)
    text = f"{size:.1f} {unit}" if unit != "B" else f"{done} B"
    if seconds > 0 and done:
        rate, rate_unit = units.pretty(done / seconds)
        text += f"  {rate:.1f} {rate_unit}/s"
    if not total:
        return f"{what}  {text}"[:columns]
    share = min(done / total, 1.0)
    if 0 < share < 1 and seconds > 1:
        left = int(seconds / share - seconds)
        text += f"  {left // 60}:{left % 60:02} left"
    room = columns - len(what) - len(text) - 12
    if room < 8:
        return f"{what} {share:4.0%}  {text}"[:columns]
    room = min(room, 40)
    filled = int(share * room)
    return f"{what} [{'#' * filled}{'.' * (room - filled)}] {share:4.0%}  {text}"

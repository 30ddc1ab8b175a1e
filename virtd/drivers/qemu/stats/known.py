"""What the statistics of one guest are made of."""

from collections.abc import Mapping
from typing import NamedTuple

from virtd.drivers.qemu import shape
from virtd.drivers.qemu.monitor.qmp import QMPError
from virtd.drivers.qemu.stats.facts import Facts
from virtd.drivers.qemu.status import Status


class Known(NamedTuple):
    """All that is known of one guest when its statistics are made.

    Attributes:
        state: state and reason.
        status: of a guest that runs.
        facts: of its live XML, else of its definition.
        group: its control group, None if it has none.
        answers: what QEMU said: command → result.
        backing: whether backing images are wanted, too.
    """

    state: tuple[int, int]
    status: Status | None
    facts: Facts
    group: str | None
    answers: Mapping[str, object]
    backing: bool

    def list(self, command: str) -> list[shape.Table]:
        """The tables that a command answered; none if there was no answer."""
        found = self.answers.get(command)
        return [] if found is None or isinstance(found, QMPError) else shape.as_tables(found, command)

    def table(self, command: str) -> shape.Table:
        """The table that a command answered; an empty one if there was no answer."""
        found = self.answers.get(command)
        return {} if found is None or isinstance(found, QMPError) else shape.as_table(found, command)

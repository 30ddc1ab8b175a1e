"""What a rule is: when a definition is refused, and in which of libvirt's words.

Rules stand in tables, one table for each kind of device and each of the two that look: libvirt's own part (errors of
VIR_FROM_DOMAIN) and its QEMU driver (VIR_FROM_QEMU). The first rule that is broken counts, so their order is libvirt's.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.conf.domain.basics import is_i440fx, is_q35
from virtd.conf.domain.display import SpiceGraphics
from virtd.conf.domain.domain import Domain
from virtd.conf.host import Emulator, Host, Machine
from virtd.errors import VirtError

UNSUPPORTED, XML, INTERNAL, DETAIL = (
    c.VIR_ERR_CONFIG_UNSUPPORTED,
    c.VIR_ERR_XML_ERROR,
    c.VIR_ERR_INTERNAL_ERROR,
    c.VIR_ERR_XML_DETAIL,
)


class Context:
    """What rules look at besides the device: the definition, and what runs it."""

    def __init__(self, domain: Domain, host: Host, emulator: Emulator, machine: Machine) -> None:
        self.domain = domain
        self.host = host
        self.emulator = emulator
        self.machine = machine
        self.q35 = is_q35(machine.name)
        self.i440fx = is_i440fx(machine.name)
        self.spice = any(isinstance(graphics, SpiceGraphics) for graphics in domain.graphics)
        backing = domain.memory_backing
        self.shared_memory = backing is not None and backing.access == "shared"
        if not self.shared_memory and domain.cpu is not None and domain.cpu.numa is not None:
            cells = domain.cpu.numa.cells
            self.shared_memory = bool(cells) and all(cell.access == "shared" for cell in cells)

    @property
    def cells(self) -> int:
        """How many NUMA cells the guest has."""
        cpu = self.domain.cpu
        return len(cpu.numa.cells) if cpu is not None and cpu.numa is not None else 0


class Rule(NamedTuple):
    """One reason to refuse.

    Args:
        broken: whether this is so; what it returns is {v} in the text.
        text: libvirt's words; {d} stands for the device, {x} for the context.
        code: libvirt's code.
    """

    broken: Callable[[Context, Any], object]
    text: str
    code: int = UNSUPPORTED


Rules = Sequence[Rule | Callable[[Context, Any], None]]
"""A table: rules, and functions that raise by themselves where one line does not do."""


def apply(rules: Rules, x: Context, device: object, domain: int) -> None:
    """Hold a device (or what else the rules are about) against a table.

    Args:
        rules: the table.
        x: the context.
        device: what is looked at.
        domain: the VIR_FROM_* constant of the errors.

    Raises:
        VirtError: for the first rule that is broken.
    """
    for rule in rules:
        if not isinstance(rule, Rule):
            rule(x, device)
            continue
        found = rule.broken(x, device)
        if found:
            raise VirtError(rule.code, rule.text.format(d=device, x=x, v=found), domain=domain)


def first(items: Sequence[Any] | Any, wanted: Callable[[Any], object]) -> Any:
    """The first item that is wanted, None if there is none."""
    return next((item for item in items if wanted(item)), None)

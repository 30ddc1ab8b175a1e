"""What one QEMU binary can do, as a value: what probe.py finds out, keeps on disk, and reads back.

Nothing is in here that nobody asks for. A table read back from disk is checked like anything else from outside;
a field that is added changes FORMAT, which makes what older versions wrote be probed anew.
"""

from dataclasses import dataclass
from functools import cached_property

from virtd.drivers.qemu import shape
from virtd.drivers.qemu.shape import Table

FORMAT = 1


@dataclass(frozen=True)
class Machine:
    """A machine type (query-machines)."""

    name: str
    alias: str | None
    default: bool
    max_cpus: int
    hotplug_cpus: bool
    deprecated: bool
    ram_id: str | None  # id of the memory backend that holds its memory
    cpu: str | None  # QOM type of its default CPU model
    numa_sizes: bool  # NUMA nodes have a plain size, not a memory backend


@dataclass(frozen=True)
class CpuModel:
    """A CPU model (query-cpu-definitions)."""

    name: str
    type_name: str
    blockers: tuple[str, ...]  # features which it has and this accelerator cannot give
    deprecated: bool


@dataclass(frozen=True)
class Binary:
    """A QEMU binary, with one accelerator."""

    path: str
    version: tuple[int, int, int]
    package: str
    target: str  # QEMU's name of the architecture
    machines: tuple[Machine, ...]  # the default one first
    cpu_models: tuple[CpuModel, ...]
    widest_cpu: dict[str, object]  # properties of model 'max' (TCG) or 'host' (KVM): what a guest's CPU can have
    types: frozenset[str]  # all QOM types that can be made
    commands: frozenset[str]  # QMP commands
    options: dict[str, frozenset[str]]  # command line options and their parameters
    choices: dict[str, frozenset[str]]  # variants of QAPI unions: 'blockdev', 'netdev', 'chardev', 'object', 'display'
    tpm_models: tuple[str, ...]
    tpm_types: tuple[str, ...]
    sev: dict[str, object] | None  # query-sev-capabilities
    sgx: dict[str, object] | None  # query-sgx-capabilities

    @cached_property
    def _by_name(self) -> dict[str, Machine]:
        names = {machine.name: machine for machine in self.machines}
        return names | {machine.alias: machine for machine in self.machines if machine.alias}

    def machine(self, name: str) -> Machine | None:
        """The machine type of this name or alias."""
        return self._by_name.get(name)

    @property
    def default_machine(self) -> Machine | None:
        """The machine type that is taken if none is named."""
        return next((machine for machine in self.machines if machine.default), None)

    def has(self, type_name: str) -> bool:
        """Whether a device or object of this QOM type can be made."""
        return type_name in self.types


def encode(binary: Binary) -> Table:
    """A binary as a table that JSON can hold."""
    table: Table = dict(vars(binary))
    table.pop("_by_name", None)
    table["machines"] = [vars(machine) for machine in binary.machines]
    table["cpu_models"] = [vars(model) for model in binary.cpu_models]
    # As one string each: read back in a tenth of the time of a list of a thousand.
    table["types"] = " ".join(sorted(binary.types))
    table["commands"] = " ".join(sorted(binary.commands))
    for field in ("options", "choices"):
        table[field] = {name: " ".join(sorted(items)) for name, items in getattr(binary, field).items()}
    return table


def decode(table: Table) -> Binary:
    """Read a binary back.

    Raises:
        ShapeError: it is not what encode() gave.
    """
    version = table.get("version")
    if not isinstance(version, list) or [type(number) for number in version] != [int] * 3:
        raise shape.ShapeError("'version' in data is no version")
    return Binary(
        path=shape.text(table, "path"),
        version=(version[0], version[1], version[2]),
        package=shape.text(table, "package"),
        target=shape.text(table, "target"),
        machines=tuple(_machine(item) for item in shape.tables(table, "machines")),
        cpu_models=tuple(_model(item) for item in shape.tables(table, "cpu_models")),
        widest_cpu=shape.table(table, "widest_cpu"),
        types=frozenset(shape.text(table, "types").split()),
        commands=frozenset(shape.text(table, "commands").split()),
        options=_sets(shape.table(table, "options")),
        choices=_sets(shape.table(table, "choices")),
        tpm_models=tuple(shape.texts(table, "tpm_models")),
        tpm_types=tuple(shape.texts(table, "tpm_types")),
        sev=shape.table(table, "sev") if table.get("sev") is not None else None,
        sgx=shape.table(table, "sgx") if table.get("sgx") is not None else None,
    )


def _machine(item: Table) -> Machine:
    return Machine(
        name=shape.text(item, "name"),
        alias=_optional(item, "alias"),
        default=shape.truth(item, "default"),
        max_cpus=shape.number(item, "max_cpus"),
        hotplug_cpus=shape.truth(item, "hotplug_cpus"),
        deprecated=shape.truth(item, "deprecated"),
        ram_id=_optional(item, "ram_id"),
        cpu=_optional(item, "cpu"),
        numa_sizes=shape.truth(item, "numa_sizes"),
    )


def _model(item: Table) -> CpuModel:
    return CpuModel(
        name=shape.text(item, "name"),
        type_name=shape.text(item, "type_name"),
        blockers=tuple(shape.texts(item, "blockers")),
        deprecated=shape.truth(item, "deprecated"),
    )


def _optional(item: Table, key: str) -> str | None:
    return None if item.get(key) is None else shape.text(item, key)


def _sets(table: Table) -> dict[str, frozenset[str]]:
    return {name: frozenset(shape.text(table, name).split()) for name in table}

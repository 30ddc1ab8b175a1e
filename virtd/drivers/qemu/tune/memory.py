"""A guest's memory: how much it has, what it says of it, what is in it."""

import os

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.changes import Changes
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.monitor import ask
from virtd.drivers.qemu.monitor.qmp import QMPError
from virtd.drivers.qemu.stats import usage
from virtd.drivers.qemu.stats.groups import balloon_numbers
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, MemoryStat
from virtd.state import files

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG
_PEEK_COMMANDS = {c.VIR_MEMORY_VIRTUAL: "memsave", c.VIR_MEMORY_PHYSICAL: "pmemsave"}


class Memory(Changes):
    """Memory statistics, the balloon, and looks into the memory."""

    def domain_memory_stats(self, domain: Domain, most: int, flags: int) -> list[MemoryStat]:
        """virDomainMemoryStats, in KiB but for faults and times."""
        unsupported_flags(flags, 0, "qemuDomainMemoryStats")
        entry, status = self.running(domain)
        config = self.live(entry)
        actual, told = config.memory or 0, []
        if has_balloon(config):
            where: dict[str, object] = {"path": balloon_path(config), "property": "guest-stats"}
            answers = ask.ask(self.guest(entry), [("query-balloon", None), ("qom-get", where)])
            size, numbers = (None if isinstance(one, QMPError) else shape.as_table(one, "balloon") for one in answers)
            if size is not None:
                actual = shape.number(size, "actual") // 1024
            if numbers is not None:
                told = [MemoryStat(tag, value) for tag, _, value in balloon_numbers(numbers)]
        stats = [MemoryStat(c.VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON, actual), *told]
        if status.process is not None:
            stats.append(MemoryStat(c.VIR_DOMAIN_MEMORY_STAT_RSS, usage.resident(status.process.pid)))
        return stats[:most]

    def domain_set_memory(self, domain: Domain, size: int) -> None:
        """virDomainSetMemory, in KiB."""
        self.domain_set_memory_flags(domain, size, c.VIR_DOMAIN_AFFECT_LIVE)

    def domain_set_max_memory(self, domain: Domain, size: int) -> None:
        """virDomainSetMaxMemory, in KiB."""
        self.domain_set_memory_flags(domain, size, c.VIR_DOMAIN_MEM_MAXIMUM)

    def domain_set_memory_flags(self, domain: Domain, size: int, flags: int) -> None:
        """virDomainSetMemoryFlags: the memory that the guest has, or (MAXIMUM) may have, in KiB."""
        unsupported_flags(flags, _AFFECT | c.VIR_DOMAIN_MEM_MAXIMUM, "qemuDomainSetMemoryFlags")
        if not size:
            text = "memory in virDomainSetMemoryFlags must not be zero"
            raise VirtError.invalid_argument("virDomainSetMemoryFlags", "memory", text, domain=c.VIR_FROM_DOMAIN)

        def limit(config: Config, live: bool) -> None:
            if live:
                text = "cannot resize the maximum memory on an active domain"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
            if config.cpu is not None and config.cpu.numa is not None:
                text = "initial memory size of a domain with NUMA nodes cannot be modified with this API"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
            if config.max_memory is not None and config.max_memory < size:
                text = "cannot set initial memory size greater than the maximum memory size"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
            config.memory = size
            config.current_memory = min(config.current_memory or size, size)

        def give(config: Config, live: bool) -> None:
            if size > (config.memory or 0):
                text = "cannot set memory higher than max memory"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
            if live and not has_balloon(config):
                text = "Unable to change memory of active domain without the balloon device and guest OS balloon driver"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
            config.current_memory = size

        def inflate(guest: Guest, config: Config) -> None:
            with guest.monitor() as monitor:
                monitor.execute("balloon", {"value": size * 1024})

        if flags & c.VIR_DOMAIN_MEM_MAXIMUM:
            self.change(domain, "virDomainSetMemoryFlags", flags, limit)
        else:
            self.change(domain, "virDomainSetMemoryFlags", flags, give, inflate)

    def domain_set_memory_stats_period(self, domain: Domain, period: int, flags: int) -> None:
        """virDomainSetMemoryStatsPeriod: how often the guest tells of its memory, in s; 0: never."""
        unsupported_flags(flags, _AFFECT, "qemuDomainSetMemoryStatsPeriod")
        if period < 0:
            function = "virDomainSetMemoryStatsPeriod"
            text = f"period in {function} must be zero or greater"
            raise VirtError.invalid_argument(function, "period", text, domain=c.VIR_FROM_DOMAIN)

        def edit(config: Config, live: bool) -> None:
            if not has_balloon(config) or config.memballoon is None:
                text = "Memory balloon model must be virtio to set the collection period"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
            config.memballoon.stats_period = period

        def apply(guest: Guest, config: Config) -> None:
            name = "guest-stats-polling-interval"
            with guest.monitor() as monitor:
                monitor.execute("qom-set", {"path": balloon_path(config), "property": name, "value": period})

        self.change(domain, "virDomainSetMemoryStatsPeriod", flags, edit, apply)

    def domain_memory_peek(self, domain: Domain, offset: int, size: int, flags: int) -> bytes:
        """virDomainMemoryPeek: bytes at a physical address, or at one of the first virtual CPU's."""
        self.one_of(flags, ("VIR_MEMORY_VIRTUAL", "VIR_MEMORY_PHYSICAL"), "virDomainMemoryPeek")
        unsupported_flags(flags, c.VIR_MEMORY_VIRTUAL | c.VIR_MEMORY_PHYSICAL, "qemuDomainMemoryPeek")
        command = _PEEK_COMMANDS.get(flags)
        if command is None:
            text = "flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text)
        entry, _ = self.running(domain)
        guest = self.guest(entry)
        # QEMU can hand memory over in a file only; two callers must not get each other's.
        path = f"{guest.private}/peek.{os.getpid()}"
        try:
            ask.ask(guest, [(command, {"val": offset, "size": size, "filename": path})])
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return os.read(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise files.os_error(error, f"cannot read file '{path}'") from None
        finally:
            files.remove(path)


def has_balloon(config: Config) -> bool:
    """Whether a guest has a device by which its memory can be changed."""
    return config.memballoon is not None and config.memballoon.model != "none"


def balloon_path(config: Config) -> str:
    """The balloon's name among QEMU's objects."""
    alias = config.memballoon.info.alias if config.memballoon is not None else None
    return f"/machine/peripheral/{alias or 'balloon0'}"

"""Virtual CPUs, I/O threads and QEMU's own threads: what they use, and which of the host's CPUs they may run on."""

import os

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.memory import CpuTune, EmulatorPin, IothreadPin, VcpuPin
from virtd.drivers.qemu.changes import Changes
from virtd.drivers.qemu.guest import Guest, vcpu_count
from virtd.drivers.qemu.host import cpumaps
from virtd.drivers.qemu.run.tuning import iothread_numbers, pin
from virtd.drivers.qemu.stats import usage
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, IothreadInfo, VcpuInfo

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG


class Vcpus(Changes):
    """virDomainGetVcpus, and pinning."""

    def domain_get_vcpus(self, domain: Domain, most: int, length: int) -> tuple[list[VcpuInfo], bytes]:
        """virDomainGetVcpus: state, CPU time and last host CPU of each virtual CPU; bit maps of those it may use."""
        status = self.guests.find(domain).status
        if status is None or status.process is None:
            text = "cannot retrieve vcpu information for inactive domain"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text)
        infos, maps = [], b""
        for number, thread in sorted(usage.threads(status.process).vcpus.items())[:most]:
            used = usage.vcpu(status.process.pid, thread)
            infos.append(VcpuInfo(number, c.VIR_VCPU_RUNNING, used.time, max(0, used.cpu)))
            maps += cpumaps.to_map(cpumaps.affinity(thread), length)
        return infos, maps

    def domain_get_vcpu_pin_info(self, domain: Domain, most: int, length: int, flags: int) -> tuple[bytes, int]:
        """virDomainGetVcpuPinInfo: bit maps of the CPUs that each virtual CPU is configured to use."""
        self.exclusive_flags(flags, "virDomainGetVcpuPinInfo")
        unsupported_flags(flags, _AFFECT, "qemuDomainGetVcpuPinInfo")
        config = self.affected(self.guests.find(domain), flags)
        pins = {pin.vcpu: pin.cpuset for pin in (config.cputune.vcpupins if config.cputune is not None else [])}
        # All that there may be, whether they are there now or not.
        numbers = range(config.vcpu or 1)
        maps = b"".join(cpumaps.to_map(pins.get(number) or _default(config), length) for number in numbers[:most])
        return maps, min(most, len(numbers))

    def domain_get_emulator_pin_info(self, domain: Domain, length: int, flags: int) -> tuple[bytes, int]:
        """virDomainGetEmulatorPinInfo: the CPUs for QEMU's other threads."""
        self.exclusive_flags(flags, "virDomainGetEmulatorPinInfo")
        unsupported_flags(flags, _AFFECT, "qemuDomainGetEmulatorPinInfo")
        config = self.affected(self.guests.find(domain), flags)
        pin = config.cputune.emulatorpin if config.cputune is not None else None
        return cpumaps.to_map((pin.cpuset if pin is not None else None) or _default(config), length), 1

    def domain_get_iothread_info(self, domain: Domain, flags: int) -> tuple[list[IothreadInfo], int]:
        """virDomainGetIOThreadInfo: the I/O threads, and the CPUs that each may use."""
        self.exclusive_flags(flags, "virDomainGetIOThreadInfo")
        unsupported_flags(flags, _AFFECT, "qemuDomainGetIOThreadInfo")
        entry = self.guests.find(domain)
        live, _ = self.affects(entry, flags)
        length = (cpumaps.host_cpus() + 7) // 8
        if live:
            assert entry.status is not None
            # QEMU lists them with the newest first.
            found = sorted(_threads(entry.status).iothreads.items(), reverse=True)
            infos = [IothreadInfo(n, cpumaps.to_map(cpumaps.affinity(thread), length)) for n, thread in found]
            return infos, len(infos)
        config = self.config(entry)
        tune = config.cputune
        pins = {pin.iothread: pin.cpuset for pin in (tune.iothreadpins if tune is not None else [])}
        infos = [
            IothreadInfo(number, cpumaps.to_map(pins.get(number) or _default(config), length))
            for number in iothread_numbers(config)
        ]
        return infos, len(infos)

    def domain_pin_vcpu(self, domain: Domain, vcpu: int, bits: bytes) -> None:
        """virDomainPinVcpu."""
        self.domain_pin_vcpu_flags(domain, vcpu, bits, c.VIR_DOMAIN_AFFECT_LIVE)

    def domain_pin_vcpu_flags(self, domain: Domain, vcpu: int, bits: bytes, flags: int) -> None:
        """virDomainPinVcpuFlags: let a virtual CPU run on some of the host's CPUs only."""
        unsupported_flags(flags, _AFFECT, "qemuDomainPinVcpuFlags")
        cpus = cpumaps.from_map(bits)

        def edit(config: Config, live: bool) -> None:
            count = (config.vcpu or 1) if live else vcpu_count(config)
            if vcpu >= count:
                which = "live" if live else "persistent"
                raise _invalid(f"vcpu {vcpu} is out of range of {which} cpu count {count}")
            _nonempty(cpus)
            tune = _tune(config)
            tune.vcpupins = [pin for pin in tune.vcpupins if pin.vcpu != vcpu] + [VcpuPin(vcpu=vcpu, cpuset=cpus)]
            tune.vcpupins.sort(key=lambda pin: pin.vcpu or 0)

        def apply(guest: Guest, config: Config) -> None:
            thread = _threads(guest.status()).vcpus.get(vcpu)
            if thread is not None:
                pin([thread], cpus)

        self.change(domain, "virDomainPinVcpuFlags", flags, edit, apply)

    def domain_pin_emulator(self, domain: Domain, bits: bytes, flags: int) -> None:
        """virDomainPinEmulator: the same for all of QEMU's threads that are neither virtual CPUs nor I/O threads."""
        unsupported_flags(flags, _AFFECT, "qemuDomainPinEmulator")
        cpus = cpumaps.from_map(bits)

        def edit(config: Config, live: bool) -> None:
            _nonempty(cpus)
            _tune(config).emulatorpin = EmulatorPin(cpuset=cpus)

        def apply(guest: Guest, config: Config) -> None:
            status = guest.status()
            known = _threads(status)
            others = _all_threads(status) - {*known.vcpus.values(), *known.iothreads.values()}
            pin(others, cpus)

        self.change(domain, "virDomainPinEmulator", flags, edit, apply)

    def domain_pin_iothread(self, domain: Domain, iothread: int, bits: bytes, flags: int) -> None:
        """virDomainPinIOThread."""
        unsupported_flags(flags, _AFFECT, "qemuDomainPinIOThread")
        cpus = cpumaps.from_map(bits)

        def edit(config: Config, live: bool) -> None:
            if iothread not in iothread_numbers(config):
                raise _invalid(f"iothread {iothread} not found" if live else f"iothreadid {iothread} not found")
            _nonempty(cpus)
            tune = _tune(config)
            tune.iothreadpins = [one for one in tune.iothreadpins if one.iothread != iothread]
            tune.iothreadpins.append(IothreadPin(iothread=iothread, cpuset=cpus))

        def apply(guest: Guest, config: Config) -> None:
            thread = _threads(guest.status()).iothreads.get(iothread)
            if thread is not None:
                pin([thread], cpus)

        self.change(domain, "virDomainPinIOThread", flags, edit, apply)


def enabled(config: Config) -> list[int]:
    """The numbers of the virtual CPUs that a guest has, of those it may have."""
    if config.vcpus:
        return [vcpu.id or 0 for vcpu in config.vcpus if vcpu.enabled]
    return list(range(vcpu_count(config)))


def _default(config: Config) -> frozenset[int]:
    """The CPUs for what is not pinned: those of <vcpu cpuset>, else all that are online."""
    return config.vcpu_cpuset or cpumaps.online()


def _tune(config: Config) -> CpuTune:
    if config.cputune is None:
        config.cputune = CpuTune()
    return config.cputune


def _threads(status: Status | None) -> usage.Threads:
    if status is None or status.process is None:
        return usage.Threads({}, {})
    return usage.threads(status.process)


def _all_threads(status: Status | None) -> set[int]:
    if status is None or status.process is None:
        return set()
    try:
        return {int(number) for number in os.listdir(f"/proc/{status.process.pid}/task")}
    except OSError:
        return set()


def _nonempty(cpus: frozenset[int]) -> None:
    if not cpus:
        raise _invalid("Empty cpu list for pinning")


def _invalid(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)

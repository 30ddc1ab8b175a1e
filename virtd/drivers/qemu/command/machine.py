"""The machine itself: -machine, -accel, firmware, what is booted, the clock, power management, SMBIOS."""

import os
import time

from virtd import constants as c
from virtd.conf.domain.base import Info
from virtd.conf.domain.basics import is_i440fx, is_q35
from virtd.conf.domain.disk import FileSource, SourceBase
from virtd.conf.domain.domain import Sev
from virtd.conf.domain.features import Features
from virtd.conf.domain.os import Entry, FwCfgs, Loader, Nvram, Smbios
from virtd.drivers.qemu.command.line import Line, devices_with_boot_order, escape, internal, join, unsupported
from virtd.drivers.qemu.command.memory import uses_default_memory
from virtd.drivers.qemu.command.storage import local_path, where
from virtd.drivers.qemu.run import firmware
from virtd.drivers.qemu.run.access import Use
from virtd.errors import VirtError
from virtd.state import files

_IOAPIC = {"qemu": "split", "kvm": "on"}
# For firmwares that come without a description; libvirt's own list.
_USUAL_VARIABLES = {
    "/usr/share/OVMF/OVMF_CODE.fd": "/usr/share/OVMF/OVMF_VARS.fd",
    "/usr/share/OVMF/OVMF_CODE.secboot.fd": "/usr/share/OVMF/OVMF_VARS.fd",
}
_RTC_TRACK = {"boot": None, "guest": "vm", "wall": "host", "realtime": "rt"}
# SMBIOS tables: field of the model, table, libvirt's entry → QEMU's name.
_SMBIOS_BIOS = {"vendor": "vendor", "version": "version", "date": "date", "release": "release"}
_SMBIOS_SYSTEM = {
    "manufacturer": "manufacturer",
    "product": "product",
    "version": "version",
    "serial": "serial",
    "uuid": "uuid",
    "sku": "sku",
    "family": "family",
}
_SMBIOS_BOARD = {
    "manufacturer": "manufacturer",
    "product": "product",
    "version": "version",
    "serial": "serial",
    "asset": "asset",
    "location": "location",
}
_SMBIOS_CHASSIS = {
    "manufacturer": "manufacturer",
    "version": "version",
    "serial": "serial",
    "asset": "asset",
    "sku": "sku",
}


def choose_firmware(line: Line) -> None:
    """Choose a firmware where only its kind is asked for, and a file for its variables; both become run-time values.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, none that is installed will do.
    """
    config, system = line.config, line.config.os
    template = None
    if system.firmware is not None and (system.loader is None or system.loader.path is None):
        features = config.features or Features()
        asked = system.loader or Loader()
        found = firmware.choose(
            firmware.installed(),
            interface="uefi" if system.firmware == "efi" else system.firmware,
            target=line.binary.target,
            machine=system.machine or "",
            smm=features.smm,
            secure=asked.secure,
            stateless=asked.stateless is True,
            features={one.name or "": one.enabled is True for one in system.firmware_features},
        )
        if found is None or found.device != "flash":
            raise VirtError(
                c.VIR_ERR_OPERATION_FAILED,
                f"Unable to find any firmware to satisfy '{system.firmware}'",
                domain=c.VIR_FROM_QEMU,
            )
        system.loader = Loader(
            path=found.path, type="pflash", readonly=True, secure=found.secure, stateless=asked.stateless
        )
        template = found.template
        if found.secure:
            features.smm, config.features = True, features
    loader = system.loader
    if loader is None or loader.type != "pflash" or loader.stateless:
        return
    nvram = system.nvram = system.nvram or Nvram()
    if nvram.source is not None and not isinstance(nvram.source, FileSource):
        return  # on a device or a server: there already
    if isinstance(nvram.source, FileSource):
        nvram.path = nvram.source.file
    if nvram.path is None:
        nvram.path = f"{line.setup.nvram}/{config.name}_VARS.fd"
    if line.setup.live:
        original = nvram.template or template or _template_of(loader.path)
        if line.setup.reset_nvram or not os.path.exists(nvram.path):
            _make_variables(nvram.path, original)
        line.command.images.append(Use(nvram.path, "pflash1", alone=True))


def add_firmware_images(line: Line) -> None:
    """Add the block devices that a UEFI firmware and its variables are on."""
    loader, nvram = line.config.os.loader, line.config.os.nvram
    if loader is None or loader.type != "pflash":
        return
    _flash(line, 0, FileSource(file=loader.path), read_only=loader.readonly is True)
    if nvram is not None and (nvram.source is not None or nvram.path is not None):
        _flash(line, 1, nvram.source or FileSource(file=nvram.path), read_only=False)


def add_machine(line: Line) -> None:
    """Add -machine and -accel."""
    config, features = line.config, line.config.features
    machine = config.os.machine or ""
    words: dict[str, object] = {"usb": False}
    accelerator: dict[str, object] = {}
    if features is not None:
        words |= {"vmport": features.vmport, "smm": features.smm}
        if features.ioapic is not None:
            words["kernel_irqchip"] = _IOAPIC[features.ioapic]
        if features.kvm is not None and features.kvm.dirty_ring:
            accelerator["dirty-ring-size"] = features.kvm.dirty_ring_size
        if features.tcg_tb_cache is not None:
            accelerator["tb-size"] = features.tcg_tb_cache // 1024
    for keywrap in config.keywraps:
        raise unsupported(f"{keywrap.name}-key-wrap is not available with this QEMU binary")
    words["dump-guest-core"] = config.dump_core is True
    if _by_machine(line):
        words["acpi"] = None if _acpi(line) else False
        hpet = [timer.present for timer in config.clock.timers if timer.name == "hpet"]
        words["hpet"] = False if False in hpet else None
    if isinstance(config.launch_security, Sev):
        words["confidential-guest-support"] = "lsec0"
    if config.memory_backing is not None and config.memory_backing.nosharepages:
        words["mem-merge"] = False
    if any(device.model == "nvdimm" for device in config.memory_devices):
        words["nvdimm"] = True
    if uses_default_memory(line):
        found = line.binary.machine(machine)
        words["memory-backend"] = found.ram_id if found else None
    if _has_hmat(line):
        words["hmat"] = True
    loader, nvram = config.os.loader, config.os.nvram
    if loader is not None and loader.type == "pflash":
        words["pflash0"] = "libvirt-pflash0-format"
        if nvram is not None and (nvram.source is not None or nvram.path is not None):
            words["pflash1"] = "libvirt-pflash1-format"
    if config.os.bios_serial:
        words["graphics"] = False
    line.list("machine", machine, **words)
    kvm = config.type == "kvm"
    if kvm:
        accelerator.pop("tb-size", None)
    else:
        accelerator.pop("dirty-ring-size", None)
    line.list("accel", "kvm" if kvm else "tcg", **accelerator)


def add_firmware(line: Line) -> None:
    """Add what else a firmware needs (behind -cpu, where libvirt has it)."""
    features = line.config.features
    if features is not None and features.smm and features.smm_tseg is not None:
        line.add("global", f"mch.extended-tseg-mbytes={features.smm_tseg // 1024**2}")
    loader = line.config.os.loader
    if loader is None:
        return
    if loader.type == "rom" and loader.path is not None:
        line.uses(loader.path)
        line.add("bios", loader.path)
    elif loader.type == "pflash" and loader.secure:
        line.add("global", "driver=cfi.pflash01,property=secure,value=on")


def add_smbios(line: Line) -> None:
    """Add SMBIOS tables and blobs for the firmware."""
    config = line.config
    mode = config.os.smbios
    tables = [one for one in config.sysinfo if isinstance(one, Smbios)]
    if mode == "host":
        from virtd.drivers.qemu.host import sysinfo  # few guests look like their host

        _smbios(line, sysinfo.tables())
    if mode == "sysinfo":
        if not tables:
            raise unsupported(f"Domain '{config.name}' sysinfo are not available")
        for table in tables:
            _smbios(line, table)
    for blobs in config.sysinfo:
        if isinstance(blobs, FwCfgs):
            for entry in blobs.entries:
                value = {"file": entry.file} if entry.file is not None else {"string": entry.text or ""}
                line.uses(entry.file)
                line.list("fw_cfg", **{"name": entry.name or "", **value})


def add_clock(line: Line) -> None:
    """Add the real time clock and the timers that are not the CPU's."""
    clock = line.config.clock
    words: dict[str, object] = {"base": _clock_base(line)}
    for timer in clock.timers:
        if timer.name == "rtc":
            words["clock"] = _RTC_TRACK[timer.track or "boot"]
            if timer.tickpolicy == "catchup":
                words["driftfix"] = "slew"
            elif timer.tickpolicy in ("merge", "discard"):
                raise unsupported(f"unsupported rtc timer tickpolicy '{timer.tickpolicy}'")
    line.list("rtc", **words)
    for timer in clock.timers:
        if timer.name == "pit":
            if timer.tickpolicy in ("delay", "discard"):
                line.add("global", f"kvm-pit.lost_tick_policy={timer.tickpolicy}")
            elif timer.tickpolicy == "merge":
                raise unsupported(f"unsupported pit tickpolicy '{timer.tickpolicy}'")
            elif timer.tickpolicy is None:
                line.add("global", "kvm-pit.lost_tick_policy=delay")
        elif timer.name == "hpet" and timer.present is False and not _by_machine(line):
            line.add("no-hpet")
        elif timer.name in ("platform", "armvtimer"):
            raise unsupported(f"unsupported timer type (name) '{timer.name}'")


def add_power(line: Line) -> None:
    """Add what happens at shutdown, and which sleep states there are.

    QEMU always stays when the guest shuts down or resets: the supervisor decides what comes then.
    """
    config = line.config
    line.add("no-shutdown")
    if not _acpi(line) and not _by_machine(line):
        line.add("no-acpi")
    if config.pm is not None:
        chip = "ICH9-LPC" if is_q35(config.os.machine or "") else "PIIX4_PM"
        for name, allowed in (("s3", config.pm.suspend_to_mem), ("s4", config.pm.suspend_to_disk)):
            if allowed is not None:
                line.add("global", f"{chip}.disable_{name}={int(not allowed)}")


def add_boot(line: Line) -> None:
    """Add -boot and what the firmware does not boot from a disk."""
    system = line.config.os
    words: dict[str, object] = {}
    if system.bootmenu is not None:
        words["menu"] = system.bootmenu
        if system.bootmenu:
            words["splash-time"] = system.bootmenu_timeout
    words["reboot-timeout"] = system.reboot_timeout
    line.list("boot", **words, strict=True)
    for option, value, write in (
        ("kernel", system.kernel, False),
        ("initrd", system.initrd, False),
        ("append", system.cmdline, None),
        ("dtb", system.dtb, False),
    ):
        if value is not None:
            if write is not None:
                line.uses(value, write=write)
            line.add(option, value)
    if system.acpi_table is not None:
        line.uses(system.acpi_table.path)
        line.list("acpitable", sig="SLIC", file=system.acpi_table.path)


def find_boot_order(line: Line) -> None:
    """Fill in each device's place in the boot order: its own, or from the kinds that <os> names.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, two devices want the same place.
    """
    config = line.config
    for info in devices_with_boot_order(config):
        if info.boot_order is not None:
            if info.boot_order in line.boot_order.values():
                raise internal(f"boot order {info.boot_order} used for more than one device")
            line.boot_order[id(info)] = info.boot_order
    kinds = {entry.dev: number for number, entry in reversed(list(enumerate(config.os.boot, 1)))}
    of_disk = {"disk": "hd", "lun": "hd", "cdrom": "cdrom", "floppy": "fd"}
    candidates: list[tuple[str, Info]] = [(of_disk[disk.device], disk.info) for disk in config.disks]
    candidates += [("network", interface.info) for interface in config.interfaces]
    for kind, info in candidates:
        if kind in kinds:
            line.boot_order[id(info)] = kinds.pop(kind)


def add_pci_hole(line: Line) -> None:
    """Add the size of the window for 64-bit PCI addresses."""
    for controller in line.config.controllers:
        if controller.type == "pci" and controller.pcihole64 is not None:
            machine = line.config.os.machine or ""
            if controller.model == "pci-root" and is_i440fx(machine):
                host = "i440FX-pcihost"
            elif controller.model == "pcie-root" and is_q35(machine):
                host = "q35-pcihost"
            else:
                raise unsupported("Setting the 64-bit PCI hole size is not supported with this QEMU binary")
            line.add("global", f"{host}.pci-hole64-size={controller.pcihole64}K")


def _flash(line: Line, number: int, source: SourceBase, *, read_only: bool) -> None:
    line.uses(local_path(source), write=not read_only)
    storage = f"libvirt-pflash{number}-storage"
    properties = where(line, source, f"pflash{number}")
    line.json("blockdev", {**properties, "node-name": storage, "auto-read-only": True, "discard": "unmap"})
    line.json(
        "blockdev",
        {"node-name": f"libvirt-pflash{number}-format", "read-only": read_only, "driver": "raw", "file": storage},
    )


def _acpi(line: Line) -> bool:
    features = line.config.features
    return features is not None and features.acpi


def _by_machine(line: Line) -> bool:
    """Whether -machine switches ACPI and HPET off: QEMU 8 deprecates the options for that, QEMU 9 has none."""
    return line.binary.version >= (8, 0, 0)


def _template_of(path: str | None) -> str | None:
    """What the variables of a firmware are at first: as its description says, or by the usual names of files."""
    found = next((one.template for one in firmware.installed() if one.path == path), None)
    return found or _USUAL_VARIABLES.get(path or "")


def _make_variables(path: str, template: str | None) -> None:
    """Make the file with a firmware's variables, as they are at first."""
    content = files.read(template) if template is not None else None
    if content is None:
        raise VirtError(
            c.VIR_ERR_OPERATION_FAILED,
            f"unable to find any master var store for loader: {template or path}",
            domain=c.VIR_FROM_QEMU,
        )
    files.make_directory(os.path.dirname(path))
    files.replace(path, content, durable=True)


def _has_hmat(line: Line) -> bool:
    cpu = line.config.cpu
    if cpu is None or cpu.numa is None:
        return False
    return bool(cpu.numa.latencies or cpu.numa.bandwidths or any(cell.caches for cell in cpu.numa.cells))


def _clock_base(line: Line) -> str:
    clock = line.config.clock
    if clock.offset == "localtime":
        return "localtime"
    if clock.offset == "timezone":
        line.command.environment["TZ"] = clock.timezone or ""
        return "localtime"
    if clock.offset in ("variable", "absolute"):
        now = time.time()
        if clock.offset == "absolute":
            start = float(clock.start or 0)
        else:
            adjustment = clock.adjustment or "0"
            start = now + (int(adjustment) if adjustment.lstrip("-").isdigit() else 0)
            if clock.basis == "localtime":
                start += time.localtime(now).tm_gmtoff
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(start))
    return "utc"


def _smbios(line: Line, table: Smbios) -> None:
    if table.bios:
        _entries(line, 0, {}, table.bios, _SMBIOS_BIOS)
    if table.system:
        _entries(line, 1, {}, table.system, _SMBIOS_SYSTEM)
    if len(table.base_boards) > 1:
        raise unsupported("qemu does not support more than one entry to Type 2 in SMBIOS table")
    # Of these two libvirt says an empty manufacturer where none is given; QEMU's own would be "QEMU".
    for board in table.base_boards:
        _entries(line, 2, {"manufacturer": ""}, board.entries, _SMBIOS_BOARD)
    if table.chassis:
        _entries(line, 3, {"manufacturer": ""}, table.chassis, _SMBIOS_CHASSIS)
    if table.oem_strings:
        line.add("smbios", ",".join(["type=11", *(f"value={escape(one.text or '')}" for one in table.oem_strings)]))


def _entries(line: Line, number: int, usual: dict[str, str], entries: list[Entry], names: dict[str, str]) -> None:
    """One SMBIOS table, its strings in QEMU's order."""
    given = usual | {entry.name or "": entry.text or "" for entry in entries}
    line.add("smbios", join(f"type={number}", **{names[name]: given[name] for name in names if name in given}))

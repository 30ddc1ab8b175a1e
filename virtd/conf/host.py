"""What the models need to know of the host: which emulators there are, and what each of them can.

The QEMU driver fills this in from probing; nothing here looks at the system. `GOLDEN_HOST` describes the machine
on which libvirt's reference outputs were made: QEMU 7.2 of Debian 12, without KVM.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from virtd import constants as c
from virtd.errors import VirtError


class Machine(NamedTuple):
    """A machine type.

    Args:
        name: its canonical name.
        max_cpus: how many virtual CPUs it can have.
        default_cpu: the CPU model if none is asked for.
    """

    name: str
    max_cpus: int = 255
    default_cpu: str = "qemu64"


class Emulator(NamedTuple):
    """A QEMU binary.

    Args:
        path: where it is.
        arches: which guest architectures it runs.
        virt_types: which domain types work with it ("qemu", "kvm").
        machines: its machine types by name, aliases included.
        default_machine: the name it uses if none is asked for.
        devices: names of the device and object types it has; what is not named does not exist.
        cpu_models: names of CPU models it has.
    """

    path: str
    arches: tuple[str, ...]
    virt_types: frozenset[str]
    machines: Mapping[str, Machine]
    default_machine: str
    devices: frozenset[str]
    cpu_models: frozenset[str] = frozenset()

    def has(self, device: str) -> bool:
        """Whether there is a device or object of this type."""
        return device in self.devices


class Host:
    """What can be run here, and where virtd keeps its files.

    Args:
        arch: the host's own architecture.
        emulators: by path.
        default_emulators: the path of the emulator for an architecture.
        nvram_dir: where variable stores of UEFI guests are made.
        channel_dir: where the sockets of channels are made.
        settings: truth values of the driver's configuration file that the model's rules depend on
            ("vnc_tls", "spice_tls", …).
    """

    __slots__ = ("arch", "channel_dir", "default_emulators", "emulators", "nvram_dir", "settings")

    def __init__(
        self,
        arch: str,
        emulators: dict[str, Emulator],
        default_emulators: dict[str, str],
        nvram_dir: str = "/var/lib/libvirt/qemu/nvram",
        channel_dir: str = "/var/lib/libvirt/qemu/channel/target",
        settings: frozenset[str] = frozenset(),
    ) -> None:
        self.arch = arch
        self.emulators = emulators
        self.default_emulators = default_emulators
        self.nvram_dir = nvram_dir
        self.channel_dir = channel_dir
        self.settings = settings

    def why_not(self, kind: str) -> str:
        """Why a domain type does not work here, for people; '' if it is just not one of the emulator's."""
        return ""

    def emulator(self, path: str) -> Emulator:
        """The emulator at a path.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR if there is none.
        """
        found = self.emulators.get(path)
        if found is None:
            raise VirtError(
                c.VIR_ERR_SYSTEM_ERROR,
                f"Cannot check QEMU binary {path}: No such file or directory",
                domain=c.VIR_FROM_QEMU,
            )
        return found

    def emulator_for(self, arch: str) -> str:
        """The path of the emulator for an architecture.

        Raises:
            VirtError: VIR_ERR_CONFIG_UNSUPPORTED if there is none.
        """
        found = self.default_emulators.get(arch)
        if found is None:
            raise VirtError(
                c.VIR_ERR_CONFIG_UNSUPPORTED, f"No emulator found for arch '{arch}'", domain=c.VIR_FROM_QEMU
            )
        return found


_Q35 = "2.4 2.5 2.6 2.7 2.8 2.9 2.10 2.11 2.12 3.0 3.1 4.0 4.0.1 4.1 4.2 5.0 5.1 5.2 6.0 6.1 6.2 7.0 7.1 7.2"
_PC = (
    "1.4 1.5 1.6 1.7 2.0 2.1 2.2 2.3 2.4 2.5 2.6 2.7 2.8 2.9 2.10 2.11 2.12 3.0 3.1 4.0 4.1 4.2 5.0 5.1 5.2 "
    "6.0 6.1 6.2 7.0 7.1 7.2"
)
_OLD_Q35 = ("2.4", "2.5", "2.6", "2.7")


def _golden_machines(cpu: str) -> dict[str, Machine]:
    machines = [Machine(f"pc-i440fx-{v}", 255, cpu) for v in _PC.split()]
    machines += [Machine(f"pc-q35-{v}", 255 if v in _OLD_Q35 else 288, cpu) for v in _Q35.split()]
    machines += [Machine("isapc", 1, "486"), Machine("microvm", 288, cpu), Machine("x-remote", 1, cpu)]
    by_name = {machine.name: machine for machine in machines}
    return {**by_name, "pc": by_name["pc-i440fx-7.2"], "q35": by_name["pc-q35-7.2"]}


def words(text: str) -> frozenset[str]:
    """A set of names from one string."""
    return frozenset(text.split())


QEMU_7_2_DEVICES = words(
    """
    AC97 ES1370 VGA am53c974 amd-iommu bochs-display ccid-card-emulated ccid-card-passthru cirrus-vga dc390 e1000
    e1000-82544gc e1000-82545em e1000e floppy hda-duplex hda-micro hda-output i6300esb i82801b11-bridge ib700
    ich9-ahci ich9-intel-hda ich9-usb-ehci1 ich9-usb-uhci1 ich9-usb-uhci2 ich9-usb-uhci3 intel-hda intel-iommu ioh3420
    isa-cirrus-vga isa-debugcon isa-fdc isa-ide isa-parallel isa-serial isa-vga ivshmem-doorbell ivshmem-plain lsi53c810
    lsi53c895a megasas mptsas1068 ne2k_isa ne2k_pci nec-usb-xhci nvdimm nvme pc-dimm pci-bridge pci-ohci pci-serial
    pcie-pci-bridge pcie-root-port pcnet piix3-ide piix3-usb-uhci piix4-ide piix4-usb-uhci pvpanic pvpanic-pci pvscsi
    pxb pxb-pcie qemu-xhci qxl qxl-vga ramfb rtl8139 sb16 scsi-block scsi-cd scsi-generic scsi-hd secondary-vga sga
    tpm-crb tpm-tis usb-audio usb-bot usb-braille usb-ccid usb-ehci usb-host usb-hub usb-kbd usb-mouse usb-net
    usb-redir usb-serial usb-storage usb-tablet vfio-pci vhost-scsi-pci vhost-user-blk-pci vhost-user-fs-pci
    vhost-user-gpu-pci vhost-user-vga vhost-vsock-pci virtio-9p-pci virtio-balloon-pci virtio-blk-pci virtio-crypto-pci
    virtio-gpu-gl-pci virtio-gpu-pci virtio-input-host-pci virtio-iommu-pci virtio-keyboard-pci virtio-mem-pci
    virtio-mouse-pci virtio-net-pci virtio-pmem-pci virtio-rng-pci virtio-scsi-pci virtio-serial-pci virtio-tablet-pci
    virtio-vga virtio-vga-gl virtconsole virtserialport vmcoreinfo vmgenid vmware-svga vmxnet3 x3130-upstream
    xio3130-downstream secret memory-backend-file memory-backend-memfd memory-backend-ram iothread rng-egd
    rng-random rng-builtin tls-creds-x509 filter-dump throttle-group pr-manager-helper
    """
)


def _golden_emulator(path: str, arches: Iterable[str], cpu: str) -> Emulator:
    return Emulator(path, tuple(arches), frozenset(("qemu",)), _golden_machines(cpu), "pc", QEMU_7_2_DEVICES)


_X86_64 = _golden_emulator("/usr/bin/qemu-system-x86_64", ("x86_64", "i686"), "qemu64")
_I386 = _golden_emulator("/usr/bin/qemu-system-i386", ("i686",), "qemu32")

GOLDEN_HOST = Host(
    arch="x86_64",
    emulators={e.path: e for e in (_X86_64, _I386)},
    default_emulators={"x86_64": _X86_64.path, "i686": _I386.path},
)

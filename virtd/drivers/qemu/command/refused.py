"""What a guest's configuration may say and nobody carries out: refused by name at the start.

REFUSED lists it by model and field, with libvirt's words for it. INERT lists what is none of QEMU's command line: what
only describes, what the life cycle, the network's or the storage's own driver does, what libvirt's QEMU driver does
not heed either. Everything else is looked at by a module of this package; a test makes sure of that.
"""

from virtd.conf.domain import Domain
from virtd.conf.xml.model import Model
from virtd.drivers.qemu.command.line import unsupported

REFUSED: dict[str, dict[str, str]] = {
    "Info": {"loadparm": "<boot loadparm>", "cookie": "<cookie>"},
    "Controller": {
        "max_grant_frames": "<controller maxGrantFrames>",
        "max_event_channels": "<controller maxEventChannels>",
        "target_index": "<controller> <target index>",
    },
    "Resource": {"appid": "<fibrechannel appid>"},
    "Disk": {"backenddomain": "<backenddomain>"},
    "Filesystem": {
        "source_file": "a file as the source of a filesystem",
        "source_dev": "a device as the source of a filesystem",
        "space_hard_limit": "<space_hard_limit>",
        "space_soft_limit": "<space_soft_limit>",
    },
    "Interface": {
        "backenddomain": "<backenddomain>",
        "guest_actual": "<guest> of an interface",
    },
}

INERT: dict[str, tuple[str, ...]] = {
    # What only describes, or is only shown.
    "Domain": (
        *("qemu_namespace", "title", "description", "metadata", "emulator", "resource", "vcpu_placement"),
        # What guests do at their end is the supervisor's matter. Nothing takes locks that could be lost.
        *("on_poweroff", "on_reboot", "on_crash", "on_lockfailure"),
        # Limits, pins and counters are who starts QEMU's matter; what is locked elsewhere is nobody's.
        *("blkiotune", "memtune", "cputune", "perf", "leases"),
        # Who QEMU runs as is seen to by who starts it.
        "seclabels",
        # Of containers.
        *("uidmap", "gidmap"),
        # Definitions with them are refused.
        *("bootloader", "bootloader_args"),
        # libvirt's own names for what a QEMU can do, which virtd asks QEMU itself.
        *("qemu_add", "qemu_del"),
    ),
    "Seclabel": ("relabel", "label", "imagelabel", "baselabel"),
    "DeviceSeclabel": ("relabel", "label", "label_skip"),
    "FileSource": ("seclabels",),
    "PathSource": ("seclabels",),
    "PipeSource": ("seclabels",),
    "UnixSource": ("seclabels",),
    "BlockSource": ("seclabels",),
    "DirSource": ("seclabels",),
    "NetworkSource": ("seclabels", "portgroup", "portid"),
    "BridgeSource": ("network", "portgroup", "portid"),
    "DirectSource": ("network", "portgroup", "portid"),
    "NvmeSource": ("seclabels", "managed"),
    "SourceBase": ("seclabels",),
    "VhostUserSource": ("seclabels",),
    "VolumeSource": ("seclabels",),
    # What libvirt's QEMU driver does not heed.
    "Vcpu": ("order",),
    "Features": (
        *("apic", "pae", "hap", "msrs"),
        # Of Xen and of containers.
        *("viridian", "privnet", "xen", "capabilities"),
        # Of other machines: definitions with them are refused.
        *(
            "gic",
            "gic_version",
            "htm",
            "hpt_resizing",
            "hpt_page_size",
            "nested_hv",
            "ccf_assist",
            "cfpc",
            "sbbc",
            "ibs",
        ),
    ),
    "PciAddress": ("zpci",),
    "Catchup": ("threshold", "limit"),
    # What is written to transient ones is seen to by who starts the guest.
    "Disk": ("tray", "transient"),
    "Acceleration": ("accel2d",),
    "Video": ("primary",),
    "VideoDriver": ("vgaconf",),
    "Shmem": ("msi",),
    "Channel": ("state",),
    "Hap": ("state",),
    "QemuCapability": ("capability",),
    "MemoryDevice": ("current",),
    "Loader": ("stateless",),
    # Where libvirt would put its control group: guests have one of their own here.
    "Resource": ("partition",),
    # Ports are chosen before the command line is made.
    "VncGraphics": ("autoport",),
    "SpiceGraphics": ("autoport",),
    # Who makes the tap device sees to these; where there is none, net.py refuses them.
    "UserSource": ("dev",),
    "Interface": ("log_file", "trust_guest_rx_filters", "mac_type", "mac_check", "routes", "target_managed"),
    "EthernetSource": ("routes",),
    # Their kinds are refused as a whole.
    **dict.fromkeys(("CcwAddress",), ("cssid", "ssid", "devno")),
    "SpaprVioAddress": ("reg",),
    "NmdmSource": ("slave",),
    "EmulatorTpm": ("persistent_state", "secret", "pcr_sha1", "pcr_sha256", "pcr_sha384", "pcr_sha512"),
    "Virtiofsd": ("path", "cache", "sandbox", "xattr", "posix_lock", "flock", "thread_pool_size"),
    "DbusGraphics": ("p2p",),
    "RdpGraphics": ("autoport", "multi_user", "replace_user"),
    "PciSource": ("write_filtering",),
    # Who makes devices of the host ready sees to these.
    "UsbSource": ("vendor", "product", "startup_policy"),
    "Hostdev": ("managed", "rawio", "sgio"),
}

BELOW = frozenset(
    (
        # Below something that is inert, or refused.
        *("BlkioTune", "BlkioDevice", "MemoryTune", "CpuTune", "VcpuPin", "EmulatorPin", "IothreadPin", "VcpuSched"),
        *("IothreadSched", "EmulatorSched", "Lease", "PortForward", "PortRange", "KeyWrap"),
        # Below what storage.py and disks.py refuse as a whole.
        *("Auth", "Encryption", "Secret", "Reservations"),
        # Below what is for who connects an interface to something.
        *("Bandwidth", "Rate", "FilterRef", "FilterParameter", "VirtualPort", "Vlan", "VlanTag", "Route"),
        *("IdRange", "Xen", "Capabilities", "CacheTune", "CachePart", "MemTune", "BandwidthPart", "Monitor"),
        # Of what is refused when it is defined.
        *("Zpci", "Sev", "VdsSource"),
    )
)
"""Models of which nothing is looked at here, since they stand inside something else in these lists."""


def check(config: Domain) -> None:
    """Refuse what nobody would carry out.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED naming it.
    """
    waiting: list[Model] = [config]
    while waiting:
        model = waiting.pop()
        for name, words in REFUSED.get(type(model).__name__, {}).items():
            value = getattr(model, name, None)
            if value is not None and value is not False and value != [] and not _empty(value):
                raise unsupported(f"{words} is not supported")
        for value in vars(model).values():
            if isinstance(value, Model):
                waiting.append(value)
            elif isinstance(value, list):
                waiting += [item for item in value if isinstance(item, Model)]


def _empty(value: object) -> bool:
    """Whether a model says nothing at all."""
    return isinstance(value, Model) and all(
        inner is None or inner is False or inner == [] or _empty(inner) for inner in vars(value).values()
    )

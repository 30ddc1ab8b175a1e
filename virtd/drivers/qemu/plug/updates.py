"""What of a device can be changed: what its new description may say, and how that gets into its old one.

Of a device in a definition everything can be changed. Of a device of a running guest only little, and what a client
asks for beyond that is refused in libvirt's words, never dropped.
"""

from typing import Any

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import AddressListen, Graphics, ServerGraphics, SocketListen
from virtd.conf.domain.interface import BridgeSource, DirectSource, Interface, InterfaceDriver, InterfaceSource
from virtd.conf.domain.memorydevice import MemoryDevice
from virtd.drivers.qemu.plug.config import Wanted, find, unsupported
from virtd.drivers.qemu.plug.kinds import KINDS, devices
from virtd.drivers.qemu.plug.rules import check_source
from virtd.errors import VirtError

_REMOVABLE = ("cdrom", "floppy")
_LOCAL = "127.0.0.1"  # where displays are served if nothing is said
_MOVABLE = ("network", "bridge")
# What cannot be changed of a card while the guest runs, and libvirt's name of it.
_FIXED = (
    ("target", "tap name"),
    ("script", "script attribute"),
    ("downscript", "downscript attribute"),
)


def edit(config: Config, what: Wanted, *, live: bool) -> tuple[Any, Any]:
    """Change a device of a configuration to what a client says.

    Returns:
        The device as it was, and the one in the configuration now. The old interface of a running guest is replaced
        by the new one; of the others the same object was changed.

    Raises:
        VirtError: VIR_ERR_OPERATION_UNSUPPORTED, VIR_ERR_CONFIG_UNSUPPORTED, VIR_ERR_DEVICE_MISSING and others: it
            cannot be changed so.
    """
    kind = KINDS[what.kind]
    if not (kind.changed if live else "u" in kind.saved):
        raise unsupported("update", what.kind, live=live)
    # A network card's description mostly is that of the running guest, changed by the client (virsh domif-setlink).
    new = what.read(live=live and what.kind == "interface")
    old = _to_update(config, what, new, live=live)
    before = old.copy()
    match old:
        case Disk():
            _change_medium(old, new, live=live)
        case Interface():
            _change_card(old, new, live=live)
        case ServerGraphics():
            _change_graphics(old, new, live=live)
        case MemoryDevice():
            _change_memory(old, new)
    return before, old


def _to_update(config: Config, what: Wanted, new: Any, *, live: bool) -> Any:
    match new:
        case Disk():
            disk = next((one for one in config.disks if one.target == new.target), None)
            if disk is None and live:
                text = f"disk '{new.target}' not found"
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
            if disk is None:
                text = f"target {new.target} doesn't exist."
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
            return disk
        case Graphics():
            kind = type(new).kind
            display = next((one for one in config.graphics if type(one) is type(new)), None)
            if display is None and live:
                text = f"cannot find existing graphics device to modify of type '{kind}'"
                raise VirtError(c.VIR_ERR_DEVICE_MISSING, text, domain=c.VIR_FROM_QEMU)
            if display is None:
                text = f"cannot find existing graphics type '{kind}' device to modify"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
            return display
        case MemoryDevice():
            return _memory_to_update(config, what, live=live)
    return find(config, what, live=live)


def _memory_to_update(config: Config, what: Wanted, *, live: bool) -> Any:
    """Memory is told by its alias, or by its address, or by all but what may change."""
    wanted = what.read(live=True)
    for one in devices(config, "memory"):
        if wanted.info.alias is not None:
            same = one.info.alias == wanted.info.alias
        elif wanted.info.address is not None:
            same = one.info.address == wanted.info.address
        else:
            same = (one.model, one.size, one.node, one.block) == (wanted.model, wanted.size, wanted.node, wanted.block)
        if same:
            return one
    if live:
        text = f"memory '{wanted.info.alias or '(null)'}' not found"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    raise VirtError(c.VIR_ERR_INVALID_ARG, "memory not found", domain=c.VIR_FROM_QEMU)


def _change_memory(old: MemoryDevice, new: MemoryDevice) -> None:
    """Ask the guest to use more or less of it."""
    if old.model != "virtio-mem":
        text = f"cannot modify memory of model '{old.model}'"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    for name, words in (("model", "model"), ("size", "size"), ("block", "block size"), ("node", "guest NUMA node")):
        if getattr(new, name) != getattr(old, name):
            text = f"cannot modify memory {words} from '{getattr(old, name)}' to '{getattr(new, name)}'"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    old.requested = new.requested


def _change_medium(old: Disk, new: Disk, *, live: bool) -> None:
    """Let a drive have another disk's medium."""
    if live and old.device not in _REMOVABLE:
        text = "disk source can be changed only in removable drives"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    check_source(new)
    old.type, old.source, old.backing = new.type, new.source, None
    old.driver.type = new.driver.type or "raw"
    if not live:
        old.driver, old.iotune = new.driver, new.iotune
        old.driver.type = old.driver.type or "raw"


def _change_graphics(old: Any, new: Any, *, live: bool) -> None:
    """Change the password of a display; of a definition everything."""
    if live:
        _check_graphics(old, new)
        for name in ("passwd", "passwd_valid_to", "connected"):
            setattr(old, name, getattr(new, name))
        return
    for name in type(old).fields:
        setattr(old, name, getattr(new, name))


def _check_graphics(old: Any, new: Any) -> None:
    """Refuse what cannot be changed of a display that is served."""
    kind = type(old).kind
    socket = getattr(new, "socket", None)
    said = AddressListen(address=new.listen) if socket is None else SocketListen(socket=socket)
    mine, wanted = old.listens or [AddressListen()], new.listens or [said]
    automatic = new.autoport or new.port == -1
    if len(wanted) != len(mine):
        text = f"cannot change the number of listen addresses on '{kind}' graphics"
    elif type(wanted[0]) is not type(mine[0]):
        text = f"cannot change the type of listen address on '{kind}' graphics"
    elif isinstance(mine[0], AddressListen) and wanted[0].address not in (
        mine[0].address,
        mine[0].address or old.listen or _LOCAL,
        None if mine[0].address == _LOCAL else mine[0].address,  # where it listens if nothing is said
    ):
        text = f"cannot change listen address setting on '{kind}' graphics"
    elif bool(automatic) != bool(old.autoport) or (not automatic and new.port != old.port):
        text = f"cannot change port settings on {kind} graphics"
    elif new.keymap != old.keymap:
        text = f"cannot change keymap setting on {kind} graphics"
    else:
        return
    raise _unchangeable(text)


def network_of(source: InterfaceSource | None) -> str | None:
    """The network that a running guest's card belongs to, whatever that has plugged it into."""
    return getattr(source, "network", None)


def type_of(card: Interface) -> str:
    """The type of a card as its owner wrote it: 'network', too, where the network has plugged it into something."""
    plugged = isinstance(card.source, BridgeSource | DirectSource) and card.source.network is not None
    return "network" if plugged else card.type


def _change_card(old: Interface, new: Interface, *, live: bool) -> None:
    """Let a card have another one's link, limits and source; of a running guest's nothing else."""
    if not live:
        place = old.info.address
        for field in Interface.fields:
            if field != "mac":
                setattr(old, field, getattr(new, field))
        old.info.address = old.info.address or place
        return
    _check_card(old, new)
    if new.source != old.source:
        keep = type_of(old) == type_of(new) and _same_source(old.source, new.source)
        if not keep:
            old.type, old.source = new.type, new.source
    old.link, old.bandwidth, old.isolated = new.link, new.bandwidth, new.isolated


def _same_source(old: Any, new: Any) -> bool:
    """Whether a card stays where it is: what was chosen for it at its start is not in the new description."""
    if network_of(old) is not None:
        return bool(old.network == new.network and old.portgroup == new.portgroup)
    return bool(old == new)


def _check_card(old: Interface, new: Interface) -> None:
    model = new.model or "rtl8139"
    if model != old.model:
        raise _unchangeable(f"cannot modify network device model from {old.model} to {model}")
    mine, wanted = old.driver or InterfaceDriver(), new.driver or InterfaceDriver()
    if mine != wanted:
        raise _unchangeable("cannot modify virtio network device driver attributes")
    for field, words in _FIXED:
        given = getattr(new, field)
        if given != getattr(old, field) and not (field == "target" and given is None):
            raise _unchangeable(f"cannot modify network device {words}")
    if new.info.rom_bar != old.info.rom_bar and new.info.rom_bar is not None:
        raise _unchangeable("cannot modify network device rom bar setting")
    if new.mtu != old.mtu:
        raise _unchangeable("cannot modify MTU")
    if new.filterref is not None:
        text = f"failed to add new filter rules to '{old.target}' - attempting to restore old rules"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_QEMU)
    if new.ips or new.routes:
        text = "Invalid attempt to set network interface guest-side IP route and/or address info, not supported by QEMU"
        if new.type != "user":
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    if new.vlan != old.vlan:
        text = f"interface {old.mac} - vlan tag not supported for this connection type"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    before, after = type_of(old), type_of(new)
    moved = before != after or not _same_source(old.source, new.source)
    if (moved and not (before in _MOVABLE and after in _MOVABLE)) or new.sndbuf != old.sndbuf:
        raise _unchangeable(f"unable to change config on '{after}' network type")


def _unchangeable(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)

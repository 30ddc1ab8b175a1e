"""The ports of a running network as files, and what follows from which of them there are."""

import json
import os

from virtd.conf.network import Network, NetworkPort, parse_port
from virtd.conf.network.forward import ForwardAddress, ForwardInterface, PhysicalFunction
from virtd.drivers.network.running import Running
from virtd.state import files

Device = ForwardInterface | ForwardAddress


def load_all(running: Running) -> list[NetworkPort]:
    """All ports of a network."""
    found = []
    for path in running.port_files():
        content = files.read(path)
        if content is not None:
            found.append(parse_port(content.decode()))
    return found


def load(running: Running, uuid: str) -> NetworkPort | None:
    """The port of a uuid; None if there is none."""
    content = files.read(running.port_path(uuid))
    return None if content is None else parse_port(content.decode())


def device_key(port: NetworkPort) -> str | None:
    """What device of the host a port uses: a link's name or a PCI address; None if it is a port of a bridge."""
    plug = port.plug
    if plug is None or plug.type not in ("direct", "hostdev-pci"):
        return None
    if plug.type == "direct":
        return plug.dev
    address = plug.address
    if address is None:
        return None
    return f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:x}"


def key_of(device: Device) -> str:
    """The same of a device of the network's pool."""
    return device.dev or "" if isinstance(device, ForwardInterface) else device.text


def pool(network: Network) -> list[Device]:
    """The devices of the host that a network gives to guests, those of its physical function among them."""
    forward = network.forward
    if forward is None:
        return []
    return [*forward.interfaces, *forward.addresses, *_functions(network.mode, forward.pfs)]


def _functions(mode: str, pfs: list[PhysicalFunction]) -> list[Device]:
    """The virtual functions of a card: by PCI address for guests that get them whole, else by name (sysfs)."""
    found: list[Device] = []
    for pf in pfs:
        device = f"/sys/class/net/{pf.dev}/device"
        names = sorted((n for n in _list(device) if n.startswith("virtfn")), key=lambda n: int(n[6:]))
        for name in names:
            if mode == "hostdev":
                place = os.path.basename(os.path.realpath(f"{device}/{name}"))
                domain, bus, rest = place.split(":")
                slot, function = rest.split(".")
                numbers = [int(number, 16) for number in (domain, bus, slot, function)]
                address = dict(zip(("domain", "bus", "slot", "function"), numbers, strict=True))
                found.append(ForwardAddress(type="pci", **address))
            else:
                found += [ForwardInterface(dev=dev) for dev in _list(f"{device}/{name}/net")]
    return found


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def count_connections(network: Network, ports: list[NetworkPort]) -> None:
    """Set how many ports a network and each of its devices have; the network is changed."""
    network.connections = len(ports)
    used = [device_key(port) for port in ports]
    if network.forward is None:
        return
    devices: list[Device] = [*network.forward.interfaces, *network.forward.addresses]
    for device in devices:
        device.connections = used.count(key_of(device))
    for pf in network.forward.pfs:
        pf.connections = sum(key is not None for key in used)


def write_mac_map(running: Running, bridge: str, ports: list[NetworkPort]) -> None:
    """Write the file by which libvirt's NSS module finds the addresses of a guest by the guest's name."""
    macs: dict[str, list[str]] = {}
    for port in ports:
        macs.setdefault(port.owner_name or "", []).append(port.mac or "")
    content = json.dumps([{"domain": name, "macs": sorted(found)} for name, found in sorted(macs.items())], indent=2)
    files.replace(running.mac_map(bridge), content.encode() + b"\n", durable=False, mode=0o644)

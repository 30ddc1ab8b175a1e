"""virDomainGetGuestInfo: what a guest's agent knows, as parameters with libvirt's names."""

from collections.abc import Callable

from virtd import constants as c
from virtd.conf.domain.base import DriveAddress, PciAddress
from virtd.conf.domain.disk import Disk
from virtd.drivers import typed
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.agent.channel import Agent
from virtd.drivers.qemu.agent.client import AgentError
from virtd.protocol.records import TypedParam

Params = list[TypedParam]


def gather(agent: Agent, types: int, disks: list[Disk]) -> Params:
    """The parameters of some groups.

    Args:
        agent: the guest's.
        types: VIR_DOMAIN_GUEST_INFO_* groups; 0: all that this agent knows of.
        disks: the guest's, for their aliases.

    Raises:
        VirtError: what the agent says to a group that was asked for by name.
    """
    params: Params = []
    for bit, make in TYPES.items():
        if types and not types & bit:
            continue
        try:
            made = make(agent, disks)
            typed.check(made)
            params += made
        except AgentError:
            if types:
                raise
    return params


def _users(agent: Agent, disks: list[Disk]) -> Params:
    listed = agent.tables("guest-get-users")
    params = [typed.unsigned("user.count", len(listed))]
    for number, one in enumerate(listed):
        prefix = f"user.{number}"
        params.append(typed.string(f"{prefix}.name", shape.text(one, "user")))
        if "domain" in one:
            params.append(typed.string(f"{prefix}.domain", shape.text(one, "domain")))
        login = one.get("login-time")
        if isinstance(login, int | float) and 0 <= login < 2**53:
            params.append(typed.unsigned_long(f"{prefix}.login-time", int(login * 1000)))
    return params


_OS = ("id", "name", "pretty-name", "version", "version-id", "machine", "variant", "variant-id")


def _os(agent: Agent, disks: list[Disk]) -> Params:
    answer = shape.as_table(agent.execute("guest-get-osinfo"), "guest-get-osinfo")
    names = [(name, f"os.{name}") for name in _OS]
    names += [("kernel-release", "os.kernel-release"), ("kernel-version", "os.kernel-version")]
    return [typed.string(field, shape.text(answer, name)) for name, field in names if name in answer]


def _timezone(agent: Agent, disks: list[Disk]) -> Params:
    answer = shape.as_table(agent.execute("guest-get-timezone"), "guest-get-timezone")
    params = [typed.string("timezone.name", shape.text(answer, "zone"))] if "zone" in answer else []
    return [*params, typed.integer("timezone.offset", shape.number(answer, "offset"))]


def _hostname(agent: Agent, disks: list[Disk]) -> Params:
    answer = shape.as_table(agent.execute("guest-get-host-name"), "guest-get-host-name")
    return [typed.string("hostname", shape.text(answer, "host-name"))]


def _filesystems(agent: Agent, disks: list[Disk]) -> Params:
    listed = agent.tables("guest-get-fsinfo")
    params = [typed.unsigned("fs.count", len(listed))]
    for number, one in enumerate(reversed(listed)):
        prefix = f"fs.{number}"
        for key, field in (("name", "name"), ("mountpoint", "mountpoint"), ("type", "fstype")):
            params.append(typed.string(f"{prefix}.{field}", shape.text(one, key)))
        for key in ("total-bytes", "used-bytes"):
            if key in one:
                params.append(typed.unsigned_long(f"{prefix}.{key}", shape.number(one, key)))
        found = shape.tables(one, "disk", [])
        params.append(typed.unsigned(f"{prefix}.disk.count", len(found)))
        for place, disk in enumerate(found):
            alias = _alias(disk, disks)
            if alias is not None:
                params.append(typed.string(f"{prefix}.disk.{place}.alias", alias))
            for key, field in (("serial", "serial"), ("dev", "device")):
                if key in disk:
                    params.append(typed.string(f"{prefix}.disk.{place}.{field}", shape.text(disk, key)))
    return params


def _disks(agent: Agent, disks: list[Disk]) -> Params:
    listed = agent.tables("guest-get-disks")
    params = [typed.unsigned("disk.count", len(listed))]
    for number, one in enumerate(listed):
        prefix = f"disk.{number}"
        params.append(typed.string(f"{prefix}.name", shape.text(one, "name")))
        params.append(typed.boolean(f"{prefix}.partition", shape.truth(one, "partition", False)))
        below = shape.texts(one, "dependencies", [])
        if below:
            params.append(typed.unsigned(f"{prefix}.dependency.count", len(below)))
            params += [typed.string(f"{prefix}.dependency.{place}.name", name) for place, name in enumerate(below)]
        address = shape.table(one, "address", {})
        alias = _alias(address, disks) if address else None
        if "serial" in address:
            params.append(typed.string(f"{prefix}.serial", shape.text(address, "serial")))
        if alias is not None:
            params.append(typed.string(f"{prefix}.alias", alias))
        if shape.text(one, "alias", ""):
            params.append(typed.string(f"{prefix}.guest_alias", shape.text(one, "alias")))
    return params


def _interfaces(agent: Agent, disks: list[Disk]) -> Params:
    listed = agent.interfaces()
    params = [typed.unsigned("if.count", len(listed))]
    kinds = {c.VIR_IP_ADDR_TYPE_IPV4: "ipv4", c.VIR_IP_ADDR_TYPE_IPV6: "ipv6"}
    for number, one in enumerate(listed):
        prefix = f"if.{number}"
        params.append(typed.string(f"{prefix}.name", one.name))
        if one.hwaddr is not None:
            params.append(typed.string(f"{prefix}.hwaddr", one.hwaddr))
        params.append(typed.unsigned(f"{prefix}.addr.count", len(one.addrs)))
        for place, address in enumerate(one.addrs):
            params.append(typed.string(f"{prefix}.addr.{place}.type", kinds[address.type]))
            params.append(typed.string(f"{prefix}.addr.{place}.addr", address.addr))
            params.append(typed.unsigned(f"{prefix}.addr.{place}.prefix", address.prefix))
    return params


TYPES: dict[int, Callable[[Agent, list[Disk]], Params]] = {
    c.VIR_DOMAIN_GUEST_INFO_USERS: _users,
    c.VIR_DOMAIN_GUEST_INFO_OS: _os,
    c.VIR_DOMAIN_GUEST_INFO_TIMEZONE: _timezone,
    c.VIR_DOMAIN_GUEST_INFO_HOSTNAME: _hostname,
    c.VIR_DOMAIN_GUEST_INFO_FILESYSTEM: _filesystems,
    c.VIR_DOMAIN_GUEST_INFO_DISKS: _disks,
    c.VIR_DOMAIN_GUEST_INFO_INTERFACES: _interfaces,
}


def disk_aliases(filesystem: shape.Table, disks: list[Disk]) -> list[str]:
    """The targets of the disks that a file system lies on, as far as they are the guest's own."""
    found = (_disk(one, disks) for one in shape.tables(filesystem, "disk", []))
    return [disk.target or "" for disk in found if disk is not None]


def _alias(told: shape.Table, disks: list[Disk]) -> str | None:
    disk = _disk(told, disks)
    return None if disk is None else disk.target


def _disk(told: shape.Table, disks: list[Disk]) -> Disk | None:
    """The disk that an agent means: by its PCI address, and by its place at a controller."""
    pci = shape.table(told, "pci-controller", {})
    where = tuple(pci.get(name) for name in ("domain", "bus", "slot", "function"))
    place = tuple(told.get(name) for name in ("bus", "target", "unit"))
    for disk in disks:
        match disk.info.address:
            case PciAddress() as address:
                if where == (address.domain, address.bus, address.slot, address.function):
                    return disk
            case DriveAddress() as address:
                if told.get("bus-type") == disk.bus and place == (address.bus, address.target, address.unit):
                    return disk
    return None

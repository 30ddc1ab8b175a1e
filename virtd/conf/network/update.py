"""Changing one section of a network (virNetworkUpdate): what is added, deleted or modified, and what it must not meet.

Works on the model alone: whether that is the live or the persistent configuration is the caller's matter. Where
libvirt deletes a DHCP host that merely lacks the MAC address it was asked for, this does not.
"""

from collections.abc import Callable
from typing import TypeVar

from virtd import constants as c
from virtd.conf.network import ip as addresses
from virtd.conf.network import validate
from virtd.conf.network.dns import Dns, DnsHost, Srv, Txt, check_dns_host, check_srv, check_txt
from virtd.conf.network.forward import Forward, ForwardInterface
from virtd.conf.network.ip import Dhcp, Host, Ip, Range, refuse
from virtd.conf.network.network import Network, PortGroup
from virtd.conf.network.parse import named
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import Element, Model, View, local_name
from virtd.errors import VirtError

MODIFY, DELETE = c.VIR_NETWORK_UPDATE_COMMAND_MODIFY, c.VIR_NETWORK_UPDATE_COMMAND_DELETE
ADD_LAST, ADD_FIRST = c.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, c.VIR_NETWORK_UPDATE_COMMAND_ADD_FIRST
_ADD = (ADD_LAST, ADD_FIRST)
_COMMANDS = (MODIFY, DELETE, *_ADD)
# Sections which libvirt knows by name and cannot change.
_FIXED = {
    c.VIR_NETWORK_SECTION_BRIDGE: "bridge",
    c.VIR_NETWORK_SECTION_DOMAIN: "domain",
    c.VIR_NETWORK_SECTION_IP: "ip",
    c.VIR_NETWORK_SECTION_FORWARD: "forward",
    c.VIR_NETWORK_SECTION_FORWARD_PF: "forward pf",
}
T = TypeVar("T", bound=Model)
_View = View()


def update(network: Network, command: int, section: int, index: int, xml: str) -> None:
    """Change one section of a network; the model is changed.

    Args:
        network: the model.
        command: a VIR_NETWORK_UPDATE_COMMAND_* constant.
        section: a VIR_NETWORK_SECTION_* constant.
        index: which <ip> is meant, -1 for the one that suits best.
        xml: the element.

    Raises:
        VirtError: VIR_ERR_OPERATION_INVALID, what is to be added is there or what is to be changed is not;
            VIR_ERR_OPERATION_UNSUPPORTED, the section cannot be changed so; or what is wrong with the element.
    """
    try:
        if section in _FIXED:
            raise _unsupported(f"can't update '{_FIXED[section]}' section of network '{{network}}'")
        if section not in _SECTIONS:
            raise _unsupported("can't update unrecognized section of network")
        tag, change = _SECTIONS[section]
        el = parse_document(xml, "network_update_xml", domain=c.VIR_FROM_NETWORK)
        if local_name(el) != tag:
            text = f"unexpected element <{local_name(el)}>, expecting <{tag}>, while updating network '{{network}}'"
            raise refuse(text)
        change(network, command, index, el)
        # The network as a whole must still be one: libvirt would take what it cannot read again.
        validate.finish(network)
    except VirtError as error:
        raise named(error, network.name or "") from None


def _dhcp_of(network: Network, index: int) -> tuple[Ip, Dhcp]:
    """The address whose DHCP is meant, and its DHCP, which comes into being if need be."""
    if index >= len(network.ips):
        text = "couldn't update dhcp host entry - no <ip> element found at index"
        raise _invalid(f"{text} {index} in network '{{network}}'")
    if index < 0:
        if not network.ips:
            raise _invalid("couldn't update dhcp host entry - no <ip> element found in network '{network}'")
        found = network.dhcp_of(4) or network.dhcp_of(6) or network.ips[0]
    else:
        found = network.ips[index]
    found.dhcp = found.dhcp or Dhcp()
    return found, found.dhcp


def _update_host(network: Network, command: int, index: int, el: Element) -> None:
    found, dhcp = _dhcp_of(network, index)
    host = Host.read(el, _View)
    addresses.check_host(host, found.version, partial=command == DELETE)
    if host.ip is not None and (":" in host.ip) != (found.version == 6):
        raise _invalid(
            "the address family of a host entry IP must match the address family of the dhcp element's parent"
        )
    _check_command(command)
    keys = ("mac", "name", "ip", "id")
    given = [key for key in keys if _key(host, key) is not None]

    def shared(other: Host) -> list[bool]:
        return [_key(host, key) == _key(other, key) for key in given]

    if command == DELETE:
        _remove(dhcp.hosts, lambda other: all(shared(other)), "dhcp host entry in network '{network}'")
    elif command == MODIFY:
        place = next((n for n, other in enumerate(dhcp.hosts) if any(shared(other))), None)
        if place is None:
            shown = f"\"mac='{host.mac or ''}'\" \"name='{host.name or ''}'\" \"ip='{host.ip or ''}'\""
            raise _invalid(f"couldn't locate an existing dhcp host entry with {shown} in network '{{network}}'")
        dhcp.hosts[place] = host
    else:
        if any(any(shared(other)) for other in dhcp.hosts):
            shown = " ".join(f"{key}='{getattr(host, key) or 'unknown'}'" for key in ("mac", "name", "ip"))
            raise _exists("dhcp host", f'"<host {shown}/>"')
        _add(dhcp.hosts, host, command)


def _key(host: Host, key: str) -> str | None:
    value: str | None = getattr(host, key)
    return value.lower() if value is not None and key == "mac" else value


def _update_range(network: Network, command: int, index: int, el: Element) -> None:
    found, dhcp = _dhcp_of(network, index)
    one = Range.read(el, _View)
    addresses.check_range(one, found)
    _check_command(command)
    if command == MODIFY:
        raise _unsupported("dhcp ranges cannot be modified, only added or deleted")

    def same(other: Range) -> bool:
        return (other.start, other.end) == (one.start, one.end)

    if command == DELETE:
        _remove(dhcp.ranges, same, "dhcp range entry in network '{network}'")
    else:
        if any(map(same, dhcp.ranges)):
            raise _exists("dhcp range", f"\"<range start='{one.start}' end='{one.end}'/>\"")
        _add(dhcp.ranges, one, command)


def _update_interface(network: Network, command: int, index: int, el: Element) -> None:
    if el.get("dev") is None:
        raise refuse("missing dev attribute in <interface> element")
    one = ForwardInterface.read(el, _View)
    _check_command(command)
    if command == MODIFY:
        raise _unsupported("forward interface entries cannot be modified, only added or deleted")
    if network.forward is None:
        network.forward = Forward(mode="none")
    devices = network.forward.interfaces
    place = next((n for n, other in enumerate(devices) if other.dev == one.dev), None)
    if command == DELETE:
        if place is None:
            text = f"couldn't find an interface entry in network '{{network}}' matching <interface dev='{one.dev}'>"
            raise _invalid(text)
        if devices[place].connections:
            text = f"unable to delete interface '{one.dev}' in network '{{network}}'. It is currently being used by"
            raise _invalid(f"{text} {devices[place].connections} domains.")
        del devices[place]
    else:
        if place is not None:
            raise _exists("interface", f"\"<interface dev='{one.dev}'>\"")
        if network.mode in ("nat", "route", "open") and devices:
            text = "multiple forwarding interfaces specified for network '{network}', only one is supported"
            raise refuse(text)
        _add(devices, one, command)
    network.forward.dev = devices[0].dev if devices else None


def _update_portgroup(network: Network, command: int, index: int, el: Element) -> None:
    group = PortGroup.read(el, _View)
    _check_command(command)
    groups = network.portgroups
    place = next((n for n, other in enumerate(groups) if other.name == group.name), None)
    if place is None and command in (MODIFY, DELETE):
        text = f"couldn't find a portgroup entry in network '{{network}}' matching <portgroup name='{group.name}'>"
        raise _invalid(text)
    if place is not None and command in _ADD:
        raise _exists("portgroup", f"\"<portgroup name='{group.name}'>\"")
    others = any(other.default == "yes" and other.name != group.name for other in groups)
    if command != DELETE and group.default == "yes" and others:
        text = "a different portgroup entry in network '{network}' is already set as the default."
        raise _invalid(f"{text} Only one default is allowed.")
    if command in _ADD:
        _add(groups, group, command)
    elif command == MODIFY and place is not None:
        groups[place] = group
    elif place is not None:
        del groups[place]


def _dns_of(network: Network) -> Dns:
    network.dns = network.dns or Dns()
    return network.dns


def _update_dns_host(network: Network, command: int, index: int, el: Element) -> None:
    # Read by hand: what only says which entry is meant need not be whole.
    host = DnsHost(ip=el.get("ip"), hostnames=[name.text or "" for name in el.iterchildren("hostname")])
    check_dns_host(host, partial=command == DELETE)
    _check_command(command)
    if command == MODIFY:
        raise _unsupported("DNS HOST records cannot be modified, only added or deleted")
    hosts = _dns_of(network).hosts
    if command in _ADD:
        # One name may have several addresses.
        if any(other.ip == host.ip for other in hosts):
            raise _invalid("there is already at least one DNS HOST record with a matching field in network {network}")
        _add(hosts, host, command)
        return
    found = [
        n
        for n, other in enumerate(hosts)
        if (host.ip is not None and other.ip == host.ip)
        or (host.ip is None and set(host.hostnames) & {*other.hostnames})
    ]
    _remove_one(hosts, found, "DNS HOST")


def _update_txt(network: Network, command: int, index: int, el: Element) -> None:
    txt = Txt(name=el.get("name"), value=el.get("value"))
    check_txt(txt, partial=command == DELETE)
    _check_command(command)
    if command == MODIFY:
        raise _unsupported("DNS TXT records cannot be modified, only added or deleted")
    txts = _dns_of(network).txts
    found = [n for n, other in enumerate(txts) if other.name == txt.name and txt.value in (None, other.value)]
    if command == DELETE:
        _remove_one(txts, found, "DNS TXT")
        return
    if any(other.name == txt.name for other in txts):
        raise _invalid(f"there is already a DNS TXT record with name '{txt.name}' in network {{network}}")
    _add(txts, txt, command)


def _update_srv(network: Network, command: int, index: int, el: Element) -> None:
    srv = Srv(**{name: el.get(name) for name in Srv.fields})
    check_srv(srv, partial=command == DELETE)
    _check_command(command)
    if command == MODIFY:
        raise _unsupported("DNS SRV records cannot be modified, only added or deleted")
    srvs = _dns_of(network).srvs
    given = [name for name in Srv.fields if getattr(srv, name) is not None]
    found = [n for n, other in enumerate(srvs) if all(getattr(other, name) == getattr(srv, name) for name in given)]
    if command == DELETE:
        _remove_one(srvs, found, "DNS SRV")
        return
    if found:
        text = "there is already at least one DNS SRV record matching all specified fields in network {network}"
        raise _invalid(text)
    _add(srvs, srv, command)


def _check_command(command: int) -> None:
    if command not in _COMMANDS:
        raise _unsupported(f"unrecognized network update command code {command}")


def _add(items: list[T], item: T, command: int) -> None:
    items.insert(0 if command == ADD_FIRST else len(items), item)


def _remove(items: list[T], wanted: Callable[[T], bool], what: str) -> None:
    place = next((n for n, item in enumerate(items) if wanted(item)), None)
    if place is None:
        raise _invalid(f"couldn't locate a matching {what}")
    del items[place]


def _remove_one(items: list[T], found: list[int], what: str) -> None:
    """Remove the only record that is meant."""
    if not found:
        raise _invalid(f"couldn't locate a matching {what} record in network {{network}}")
    if len(found) > 1:
        raise _invalid(f"multiple matching {what} records were found in network {{network}}")
    del items[found[0]]


def _exists(what: str, shown: str) -> VirtError:
    return _invalid(f"there is an existing {what} entry in network '{{network}}' that matches {shown}")


def _invalid(text: str) -> VirtError:
    return refuse(text, c.VIR_ERR_OPERATION_INVALID)


def _unsupported(text: str) -> VirtError:
    return refuse(text, c.VIR_ERR_OPERATION_UNSUPPORTED)


_SECTIONS: dict[int, tuple[str, Callable[[Network, int, int, Element], None]]] = {
    c.VIR_NETWORK_SECTION_IP_DHCP_HOST: ("host", _update_host),
    c.VIR_NETWORK_SECTION_IP_DHCP_RANGE: ("range", _update_range),
    c.VIR_NETWORK_SECTION_FORWARD_INTERFACE: ("interface", _update_interface),
    c.VIR_NETWORK_SECTION_PORTGROUP: ("portgroup", _update_portgroup),
    c.VIR_NETWORK_SECTION_DNS_HOST: ("host", _update_dns_host),
    c.VIR_NETWORK_SECTION_DNS_TXT: ("txt", _update_txt),
    c.VIR_NETWORK_SECTION_DNS_SRV: ("srv", _update_srv),
}

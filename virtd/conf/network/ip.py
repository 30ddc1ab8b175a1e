"""The addresses of a network, what DHCP and TFTP offer on them, and static routes.

Texts of errors have {network} where libvirt puts the network's name; parse.py fills it in.
"""

from virtd import constants as c
from virtd.conf.netdev import refuse as _refuse
from virtd.conf.network import sockaddr
from virtd.conf.xml.model import Element, Model, View, attr, sub, subs
from virtd.conf.xml.types import MAC, POSITIVE, UINT, ULONG, YES_NO, Choice
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED
_SHORTEST_LEASE = {"seconds": 120, "minutes": 2, "hours": 1}
_ID_CHARACTERS = frozenset("0123456789abcdefABCDEF:")


def refuse(text: str, code: int = c.VIR_ERR_XML_ERROR) -> VirtError:
    """An error in a network's document."""
    return _refuse(text, code, c.VIR_FROM_NETWORK)


class Lease(Model):
    """How long a lease is valid; 0 for ever."""

    expiry = attr("@expiry", ULONG)
    unit = attr("@unit", Choice("seconds minutes hours"))

    def loaded(self, el: Element, view: View) -> None:
        """A time without a unit is in minutes, and not below two of them."""
        if not self.expiry:
            self.unit = None
            return
        self.unit = self.unit or "minutes"
        if self.expiry < _SHORTEST_LEASE[self.unit]:
            raise refuse("The minimum lease time should be greater than 2 minutes", UNSUPPORTED)


class _Leased(Model):
    """What may have a lease time of its own."""

    lease = sub("lease", Lease)

    def loaded(self, el: Element, view: View) -> None:
        """A lease that says no time is none."""
        if self.lease is not None and self.lease.expiry is None:
            self.lease = None


class Range(_Leased):
    """Addresses that are given out."""

    start = attr("@start")
    end = attr("@end")


class Host(_Leased):
    """An address that is kept for one guest."""

    mac = attr("@mac")
    id = attr("@id")
    name = attr("@name")
    ip = attr("@ip")


class Bootp(Model):
    """What a guest that boots from the network loads, and from where."""

    file = attr("@file")
    server = attr("@server")


class Dhcp(Model):
    """What DHCP gives out."""

    ranges = subs("range", Range)
    hosts = subs("host", Host)
    bootps = subs("bootp", Bootp, when=lambda dhcp, view: bool(dhcp.ranges or dhcp.hosts))

    def loaded(self, el: Element, view: View) -> None:
        """Of several <bootp> the last counts; one without a file says nothing."""
        self.bootps = [one for one in self.bootps if one.file is not None][-1:]
        for one in self.bootps:
            one.server = None if one.server is None else sockaddr.normal(one.server)


class Ip(Model):
    """An address of the host in the network."""

    family = attr("@family")
    address = attr("@address")
    netmask = attr("@netmask")
    prefix = attr("@prefix", UINT, omit=0)
    local_ptr = attr("@localPtr", YES_NO)
    tftp_root = attr("tftp/@root")
    dhcp = sub("dhcp", Dhcp)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if self.family == "ipv6" else 4

    @property
    def host_address(self) -> sockaddr.Address:
        """The address as a value."""
        assert self.address is not None
        address = sockaddr.parse(self.address)
        assert address is not None
        return address

    @property
    def prefix_length(self) -> int:
        """The prefix, the netmask's, or the class's; -1 if none makes sense."""
        if self.prefix:
            return self.prefix
        return sockaddr.netmask_prefix(self.netmask) if self.netmask else sockaddr.default_prefix(self.host_address)

    @property
    def network(self) -> sockaddr.Net:
        """The network it lies in.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR, its netmask is none.
        """
        prefix = self.prefix_length
        if prefix < 0:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"bad prefix {prefix} for network {self.address}")
        return sockaddr.network_of(self.host_address, prefix)

    def loaded(self, el: Element, view: View) -> None:
        """Check and normalise the addresses."""
        self.family, self.tftp_root = self.family or None, self.tftp_root or None
        self.netmask = self.netmask or None
        self._check_address()
        if self.version == 6 and self.tftp_root:
            raise refuse("Unsupported <tftp> element in an IPv6 element in network '{network}'", UNSUPPORTED)
        if self.dhcp is None:
            return
        if self.version == 6:
            self.dhcp.bootps = []
        for one in self.dhcp.ranges:
            check_range(one, self)
        for host in self.dhcp.hosts:
            check_host(host, self.version)

    def _check_address(self) -> None:
        if self.address is None:
            raise refuse("Missing required address attribute in network '{network}'")
        address = sockaddr.parse(self.address)
        if address is None:
            raise refuse(f"Invalid address '{self.address}' in network '{{network}}'")
        self.address = str(address)
        netmask = None
        if self.netmask is not None:
            netmask = sockaddr.parse(self.netmask)
            if netmask is None:
                raise refuse(f"Invalid netmask '{self.netmask}' in network '{{network}}'")
            self.netmask = str(netmask)
        where = f"address '{address}' in network '{{network}}'"
        if self.family is None and address.version != 4:
            raise refuse(f"no family specified for non-IPv4 {where}", UNSUPPORTED)
        if self.family == "ipv4" and address.version != 4:
            raise refuse(f"ipv4 family specified for non-IPv4 {where}", UNSUPPORTED)
        if self.family == "ipv6" and address.version != 6:
            raise refuse(f"Family 'ipv6' specified for non-IPv6 {where}", UNSUPPORTED)
        if self.family not in (None, "ipv4", "ipv6"):
            raise refuse(f"Unrecognized family '{self.family}' in network '{{network}}'")
        if netmask is not None:
            if address.version != 4:
                raise refuse(f"netmask not allowed for IPv6 {where}", UNSUPPORTED)
            if self.prefix:
                text = "Network '{network}' IP address cannot have both a prefix and a netmask"
                raise refuse(text, UNSUPPORTED)
            if netmask.version != 4:
                text = f"Invalid netmask '{netmask}' for {where} (both must be IPv4)"
                raise refuse(text, UNSUPPORTED)
        if self.prefix and self.prefix > address.max_prefixlen:
            text = f"Invalid IPv{address.version} prefix '{self.prefix}' in network '{{network}}'"
            raise refuse(text, UNSUPPORTED)


def check_range(one: Range, ip: Ip) -> None:
    """Check and normalise a DHCP range of an address.

    Raises:
        VirtError: what is wrong with it.
    """
    for name in ("start", "end"):
        if getattr(one, name) is None:
            raise refuse(f"Missing '{name}' attribute in dhcp range for network '{{network}}'")
        setattr(one, name, sockaddr.normal(getattr(one, name)))
    size_of(one, ip)


def size_of(one: Range, ip: Ip) -> int:
    """How many addresses a range has.

    Raises:
        VirtError: what is wrong with it.
    """
    first, last = sockaddr.parse(one.start or ""), sockaddr.parse(one.end or "")
    assert first is not None
    assert last is not None
    return sockaddr.check_range(first, last, ip.host_address, ip.prefix_length)


def check_host(host: Host, version: int, *, partial: bool = False) -> None:
    """Check and normalise a DHCP host.

    Args:
        version: of the address it belongs to, 4 or 6.
        partial: whether it only says which host is to be deleted.

    Raises:
        VirtError: what is wrong with it.
    """
    if host.mac is not None:
        _check_host_mac(host.mac, version)
    if host.id is not None:
        wrong = next((ch for ch in host.id if ch not in _ID_CHARACTERS), None)
        if wrong is not None:
            raise refuse(f"Invalid character '{wrong}' in id '{host.id}' of network '{{network}}'")
    if host.name is not None and not (host.name[:1].isascii() and host.name[:1].isalnum()):
        raise refuse(f"Cannot use host name '{host.name}' in network '{{network}}'")
    address = None
    if host.ip is not None:
        address = sockaddr.parse(host.ip)
        if address is None:
            raise refuse("Invalid IP address in static host definition for network '{network}'")
        host.ip = str(address)
    if partial:
        if not (host.mac or host.name or host.ip or host.id):
            text = "At least one of name, mac, or ip attribute must be specified for static host definition in network"
            raise refuse(f"{text} '{{network}}' ")
        return
    if version == 6 and not (host.id or host.name):
        raise refuse("Static host definition in IPv6 network '{network}' must have id or name attribute")
    if version == 4 and not (host.mac or host.name):
        raise refuse("Static host definition in IPv4 network '{network}' must have mac or name attribute")
    if address is None:
        raise refuse("Missing IP address in static host definition for network '{network}'")


def _check_host_mac(mac: str, version: int) -> None:
    if version == 6:
        text = f"Invalid to specify MAC address '{mac}' in network '{{network}}' IPv6 static host definition"
        raise refuse(text)
    try:
        parsed = MAC.parse(mac)
    except ValueError:
        raise refuse(f"Cannot parse MAC address '{mac}' in network '{{network}}'") from None
    if int(parsed[:2], 16) & 1:
        raise refuse(f"expected unicast mac address, found multicast '{mac}' in network '{{network}}'")


class Route(Model):
    """A route through a guest of the network."""

    family = attr("@family")
    address = attr("@address")
    netmask = attr("@netmask")
    prefix = attr("@prefix", UINT)
    gateway = attr("@gateway")
    metric = attr("@metric", POSITIVE)

    @property
    def network(self) -> sockaddr.Net:
        """Where it leads."""
        address = sockaddr.parse(self.address or "")
        assert address is not None
        if self.prefix is not None:
            return sockaddr.network_of(address, self.prefix)
        if self.netmask is not None:
            return sockaddr.network_of(address, sockaddr.netmask_prefix(self.netmask))
        return sockaddr.network_of(address, 0 if int(address) == 0 else sockaddr.default_prefix(address))

    def loaded(self, el: Element, view: View) -> None:
        """Check and normalise the addresses."""
        self.family = self.family or None
        for name in ("address", "gateway"):
            if getattr(self, name) is None:
                raise _bad(f"Missing required {name} attribute in route definition")
        address = self._parsed("address", "network")
        netmask = self._parsed("netmask", "netmask") if self.netmask is not None else None
        gateway = self._parsed("gateway", "gateway")
        if self.family is None:
            if address.version != 4:
                raise _bad(f"No family specified for non-IPv4 address '{address}' in route definition")
            if gateway.version != 4:
                # libvirt names the address, not the gateway.
                raise _bad(f"No family specified for non-IPv4 gateway '{address}' in route definition")
        elif self.family == "ipv4":
            # Both texts name the address.
            for one, what in ((address, "address"), (gateway, "gateway")):
                if one.version != 4:
                    raise _bad(f"IPv4 family specified for non-IPv4 {what} '{address}' in route definition")
        elif self.family == "ipv6":
            if address.version != 6:
                raise _bad(f"ipv6 family specified for non-IPv6 address '{address}' in route definition")
            if gateway.version != 6:
                raise _bad(f"ipv6 specified for non-IPv6 gateway address '{gateway}' in route definition")
        else:
            raise _bad(f"Unrecognized family '{self.family}' in route definition")
        if netmask is not None:
            if address.version != 4:
                raise _bad(f"Specifying netmask invalid for IPv6 address '{address}' in route definition")
            if self.prefix is not None:
                raise _bad("Route definition cannot have both a prefix and a netmask")
        if self.prefix is not None and self.prefix > address.max_prefixlen:
            text = f"Invalid prefix {self.prefix} specified in route definition, must be 0 - {address.max_prefixlen}"
            raise _bad(text)
        if not self._is_network(address):
            raise _bad(f"Address '{address}' in route definition is not a network address")

    def _is_network(self, address: sockaddr.Address) -> bool:
        if int(address) == 0:
            return True
        if self.prefix is not None:
            prefix = self.prefix
        elif self.netmask is not None:
            prefix = sockaddr.netmask_prefix(self.netmask)
        else:
            return False
        return prefix >= 0 and sockaddr.network_of(address, prefix).network_address == address

    def _parsed(self, name: str, called: str) -> sockaddr.Address:
        text = getattr(self, name)
        found = sockaddr.parse(text)
        if found is None:
            raise _bad(f"Bad {called} address '{text}' in route definition")
        setattr(self, name, str(found))
        return found


def _bad(text: str) -> VirtError:
    return refuse("{network}: " + text)

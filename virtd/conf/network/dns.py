"""<dns>: what the network's name server knows and whom it asks."""

import re

from virtd import constants as c
from virtd.conf.network import sockaddr
from virtd.conf.network.ip import refuse
from virtd.conf.xml.model import Element, Model, View, attr, subs, texts
from virtd.conf.xml.types import TEXT, YES_NO
from virtd.errors import VirtError

_SERVICE = re.compile(r"[A-Za-z0-9*+/_-]*", re.ASCII)
_PROTOCOL = re.compile(r"[A-Za-z0-9+/-]*", re.ASCII)
_LARGEST = 65535


class Forwarder(Model):
    """A name server that is asked, for everything or for one domain."""

    domain = attr("@domain")
    addr = attr("@addr")

    def loaded(self, el: Element, view: View) -> None:
        """It says whom, or for what."""
        if self.addr is None and self.domain is None:
            raise refuse("Invalid forwarder element, must contain at least one of addr or domain")
        if self.addr is not None:
            address = sockaddr.parse(self.addr)
            if address is None:
                raise refuse(f"Invalid forwarder IP address '{self.addr}' in network '{{network}}'")
            self.addr = str(address)


class Txt(Model):
    """A TXT record."""

    name = attr("@name")
    value = attr("@value")

    def loaded(self, el: Element, view: View) -> None:
        """It has name and value."""
        check_txt(self)


class Srv(Model):
    """A SRV record."""

    service = attr("@service")
    protocol = attr("@protocol")
    domain = attr("@domain")
    target = attr("@target")
    port = attr("@port", omit="0")
    priority = attr("@priority", omit="0")
    weight = attr("@weight", omit="0")

    def loaded(self, el: Element, view: View) -> None:
        """Check names and numbers."""
        check_srv(self)


class DnsHost(Model):
    """Names of an address."""

    ip = attr("@ip")
    hostnames = texts("hostname", TEXT)

    def loaded(self, el: Element, view: View) -> None:
        """It has an address and names."""
        check_dns_host(self)


class Dns(Model):
    """The network's name server."""

    enable = attr("@enable", YES_NO)
    forward_plain_names = attr("@forwardPlainNames", YES_NO)
    forwarders = subs("forwarder", Forwarder)
    txts = subs("txt", Txt)
    srvs = subs("srv", Srv)
    hosts = subs("host", DnsHost)

    def loaded(self, el: Element, view: View) -> None:
        """A name server that is switched off knows nothing."""
        if self.enable is False and (self.forwarders or self.txts or self.srvs or self.hosts):
            raise refuse("Extra data in disabled network '{network}'")


def check_txt(txt: Txt, *, partial: bool = False) -> None:
    """Check a TXT record.

    Args:
        partial: whether it only says which record is to be deleted.

    Raises:
        VirtError: what is wrong with it.
    """
    if txt.name is None:
        raise _detail("missing required name attribute in DNS TXT record of network {network}")
    if " " in txt.name:
        raise _detail(f"prohibited character in DNS TXT record name '{txt.name}' of network {{network}}")
    if txt.value is None and not partial:
        raise _detail(f"missing required value attribute in DNS TXT record named '{txt.name}' of network {{network}}")


def check_srv(srv: Srv, *, partial: bool = False) -> None:
    """Check and normalise a SRV record.

    Args:
        partial: whether it only says which record is to be deleted.

    Raises:
        VirtError: what is wrong with it.
    """
    network = "network '{network}'"
    if srv.service is None and not partial:
        raise _detail(f"missing required service attribute in DNS SRV record of {network}")
    if srv.service is not None and not _SERVICE.fullmatch(srv.service):
        raise _detail(f"invalid character in service attribute '{srv.service}' in DNS SRV record of {network}")
    if srv.protocol is None and not partial:
        raise _detail(f"missing required protocol attribute in DNS SRV record '{srv.service}' of {network}")
    if srv.protocol is not None and not _PROTOCOL.fullmatch(srv.protocol):
        raise _detail(f"invalid character in protocol attribute '{srv.protocol}' in DNS SRV record of {network}")
    for name, lowest, invalid in (("port", 1, "invalid"), ("priority", 0, "Invalid"), ("weight", 0, "invalid")):
        text = getattr(srv, name)
        if text is None:
            continue
        of = f"for service '{srv.service}' in {network}"
        if srv.target is None:
            raise _detail(f"DNS SRV {name} attribute not permitted without target {of}")
        if not (text.isascii() and text.isdigit() and lowest <= int(text) <= _LARGEST):
            raise _detail(f"{invalid} DNS SRV {name} attribute {of}")
        setattr(srv, name, str(int(text)))


def check_dns_host(host: DnsHost, *, partial: bool = False) -> None:
    """Check and normalise the names of an address.

    Args:
        partial: whether it only says which entry is to be deleted.

    Raises:
        VirtError: what is wrong with it.
    """
    if host.ip is None and not partial:
        raise _detail("Missing IP address in network '{network}' DNS HOST record")
    if host.ip is not None:
        address = sockaddr.parse(host.ip)
        if address is None:
            raise _detail("Invalid IP address in network '{network}' DNS HOST record")
        host.ip = str(address)
    host.hostnames = [name for name in host.hostnames if name]
    if not host.hostnames and not partial:
        raise _detail("Missing hostname in network '{network}' DNS HOST record")
    if partial and host.ip is None and not host.hostnames:
        raise _detail("Missing ip and hostname in network '{network}' DNS HOST record")


def _detail(text: str) -> VirtError:
    return refuse(text, c.VIR_ERR_XML_DETAIL)

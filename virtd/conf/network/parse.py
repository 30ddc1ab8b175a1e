"""From XML to a checked Network, and back."""

import re
import uuid

from virtd import constants as c
from virtd.conf.network import validate
from virtd.conf.network.network import Network
from virtd.conf.network.port import NetworkPort, check_port
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import Element, View, local_name, write_document
from virtd.errors import VirtError

# The elements which libvirt never writes in the short form: it has looked for their content before it knows of any.
_OPEN = re.compile(r"^( {2}| {4})<(ip|portgroup|bandwidth)\b([^>]*)/>$", re.MULTILINE)
_FOREIGN = re.compile(r"^  <metadata\b.*?(?:^  </metadata>$|/>$)", re.MULTILINE | re.DOTALL)


def parse_network(xml: str, *, inactive: bool = True) -> Network:
    """A network from its XML, with defaults filled in that do not depend on the host, and checked.

    Args:
        xml: the document.
        inactive: whether run-time values (numbers of connections) are ignored.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    root = parse_document(xml, "network_definition", domain=c.VIR_FROM_NETWORK)
    _check_root(root, "network")
    name = root.findtext("name") or ""
    _drop_repeated(root)
    try:
        network = Network.read(root, View(live=not inactive))
        _check_name(network.name)
        if network.uuid is None:
            network.uuid = str(uuid.uuid4())
        validate.finish(network)
    except VirtError as error:
        raise named(error, name) from None
    return network


def format_network(network: Network, *, live: bool = False) -> str:
    """The XML of a network, as libvirt writes it.

    Args:
        live: with run-time values.
    """
    text = write_document(network, "network", View(live=live))
    foreign = _FOREIGN.search(text)
    if foreign is None:
        return _open(text)
    return _open(text[: foreign.start()]) + foreign[0] + _open(text[foreign.end() :])


def parse_port(xml: str) -> NetworkPort:
    """A port of a network from its XML.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    root = parse_document(xml, "networkport", domain=c.VIR_FROM_NETWORK)
    _check_root(root, "networkport")
    try:
        port = NetworkPort.read(root, View())
        check_port(port)
    except VirtError as error:
        raise named(error, "") from None
    return port


def format_port(port: NetworkPort) -> str:
    """The XML of a port, as libvirt writes it."""
    return _open(write_document(port, "networkport", View()))


def named(error: VirtError, name: str) -> VirtError:
    """An error of the model with the network's name filled in, and as one of networks."""
    domain = c.VIR_FROM_NETWORK if error.domain == c.VIR_FROM_DOMAIN else error.domain
    if error.str2 is None:
        error.domain = domain
        return error
    return VirtError(error.code, error.str2.replace("{network}", name), domain=domain)


def _open(text: str) -> str:
    return _OPEN.sub(r"\1<\2\3>\n\1</\2>", text)


def _check_root(root: Element, name: str) -> None:
    if local_name(root) != name:
        text = f"expecting root element of '{name}', not '{local_name(root)}'"
        raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_XML)


def _drop_repeated(root: Element) -> None:
    """Of elements that a network has once the first counts, as a whole."""
    for tag in ("bridge", "mac", "mtu", "domain", "port"):
        for el in root.findall(tag)[1:]:
            root.remove(el)


def _check_name(name: str | None) -> None:
    if name is None:
        raise VirtError(c.VIR_ERR_NO_NAME, domain=c.VIR_FROM_NETWORK)
    for wrong in "/\n":
        if wrong in name:
            raise VirtError(c.VIR_ERR_XML_DETAIL, f"invalid char in name: {wrong}", domain=c.VIR_FROM_XML)

"""The network that a machine has from the beginning, as with libvirt on every distribution: 'default'.

It is defined when there has never been a definition of any, so that who undefines it does not get it back; it is not
started by itself. Only the machine's own instance has it.
"""

import os

from virtd.conf.network import format_network, parse_network
from virtd.state import files, paths
from virtd.state.definitions import DefinitionDirectory

_DEFAULT = """<network><name>default</name><forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/>
<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
</ip></network>"""


def definitions(where: paths.Paths) -> DefinitionDirectory:
    """The definitions of an instance's networks, with those that it has from the beginning if it begins now."""
    directory = f"{where.config}/networks"
    fresh = where == paths.system() and not os.path.isdir(directory)
    found = DefinitionDirectory(directory)
    if fresh:
        network = parse_network(_DEFAULT)
        network.mac = "52:54:00:" + os.urandom(3).hex(":")
        files.replace(found.path("default"), format_network(network).encode(), durable=True)
    return found

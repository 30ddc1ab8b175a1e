"""Virtual networks and their ports: models, parsing, formatting, checks."""

from virtd.conf.network.network import Network
from virtd.conf.network.parse import format_network, format_port, parse_network, parse_port
from virtd.conf.network.port import NetworkPort

__all__ = ["Network", "NetworkPort", "format_network", "format_port", "parse_network", "parse_port"]

"""The network driver: all its parts in one class."""

from virtd.drivers.network.lookup import Lookup
from virtd.drivers.network.ports import Ports
from virtd.drivers.network.updates import Updates


class NetworkDriver(Lookup, Updates, Ports):
    """Virtual networks of one instance. Each part adds the procedures of one subject."""

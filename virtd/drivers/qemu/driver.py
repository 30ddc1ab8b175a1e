"""The QEMU driver: all its parts in one class."""

from virtd.drivers.qemu.connection import ConnectionInfo
from virtd.drivers.qemu.console import Console
from virtd.drivers.qemu.metadata import Metadata
from virtd.drivers.qemu.node import Node
from virtd.drivers.qemu.properties import Properties
from virtd.drivers.qemu.statistics import Statistics
from virtd.drivers.qemu.subscriptions import Subscriptions


class QemuDriver(ConnectionInfo, Node, Statistics, Properties, Console, Metadata, Subscriptions):
    """QEMU guests of one instance. Each part adds the procedures of one subject."""

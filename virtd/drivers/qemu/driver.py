"""The QEMU driver: all its parts in one class."""

from virtd.drivers.qemu.agentcalls import AgentCalls
from virtd.drivers.qemu.blockstats import BlockStats
from virtd.drivers.qemu.connection import ConnectionInfo
from virtd.drivers.qemu.console import Console
from virtd.drivers.qemu.cpus import Cpus
from virtd.drivers.qemu.devices import Devices
from virtd.drivers.qemu.graphics import Graphics
from virtd.drivers.qemu.iotuning import IoTuning
from virtd.drivers.qemu.jobs import Jobs
from virtd.drivers.qemu.memory import Memory
from virtd.drivers.qemu.metadata import Metadata
from virtd.drivers.qemu.netio import NetIo
from virtd.drivers.qemu.node import Node
from virtd.drivers.qemu.nodememory import NodeMemory
from virtd.drivers.qemu.passthrough import Passthrough
from virtd.drivers.qemu.policies import Policies
from virtd.drivers.qemu.properties import Properties
from virtd.drivers.qemu.statistics import Statistics
from virtd.drivers.qemu.subscriptions import Subscriptions
from virtd.drivers.qemu.vcpuplug import VcpuPlug
from virtd.drivers.qemu.vcpus import Vcpus


class QemuDriver(
    ConnectionInfo,
    Node,
    NodeMemory,
    Statistics,
    Properties,
    BlockStats,
    IoTuning,
    Memory,
    Vcpus,
    VcpuPlug,
    Policies,
    Cpus,
    Devices,
    NetIo,
    AgentCalls,
    Jobs,
    Graphics,
    Passthrough,
    Console,
    Metadata,
    Subscriptions,
):
    """QEMU guests of one instance. Each part adds the procedures of one subject."""

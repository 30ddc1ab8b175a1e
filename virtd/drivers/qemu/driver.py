"""The QEMU driver: all its parts in one class.

Imported with it is also what the parts import only when they use it: a server has everything before its first fork.
"""

from virtd.drivers.qemu.agent.calls import AgentCalls
from virtd.drivers.qemu.connection import ConnectionInfo
from virtd.drivers.qemu.host import capabilities as _capabilities  # noqa: F401
from virtd.drivers.qemu.host.cpus import Cpus
from virtd.drivers.qemu.host.node import Node
from virtd.drivers.qemu.host.nodememory import NodeMemory
from virtd.drivers.qemu.jobs import Jobs
from virtd.drivers.qemu.messages import Messages
from virtd.drivers.qemu.metadata import Metadata
from virtd.drivers.qemu.monitor.passthrough import Passthrough
from virtd.drivers.qemu.plug.devices import Devices
from virtd.drivers.qemu.properties import Properties
from virtd.drivers.qemu.run import adoption as _adoption  # noqa: F401
from virtd.drivers.qemu.screen.console import Console
from virtd.drivers.qemu.screen.graphics import Graphics
from virtd.drivers.qemu.stats.blockstats import BlockStats
from virtd.drivers.qemu.stats.statistics import Statistics
from virtd.drivers.qemu.subscriptions import Subscriptions
from virtd.drivers.qemu.tune.iothreads import IoThreads
from virtd.drivers.qemu.tune.iotuning import IoTuning
from virtd.drivers.qemu.tune.memory import Memory
from virtd.drivers.qemu.tune.netio import NetIo
from virtd.drivers.qemu.tune.policies import Policies
from virtd.drivers.qemu.tune.vcpuplug import VcpuPlug
from virtd.drivers.qemu.tune.vcpus import Vcpus
from virtd.drivers.qemu.warm import warm
from virtd.state.paths import Paths


class QemuDriver(
    ConnectionInfo,
    Node,
    NodeMemory,
    Statistics,
    Properties,
    BlockStats,
    IoTuning,
    IoThreads,
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
    Messages,
    Subscriptions,
):
    """QEMU guests of one instance. Each part adds the procedures of one subject."""

    @classmethod
    def share(cls, paths: Paths) -> None:
        super().share(paths)
        warm(paths)

"""What a client asks of the connection and the host, before any guest."""

import socket

from virtd import LIBVIRT_VERSION
from virtd import constants as c
from virtd.conf.domain import Domain, assign_aliases
from virtd.conf.domain.interface import EthernetSource, Interface
from virtd.conf.domain.pciassign import assign_pci
from virtd.drivers.qemu.command import build
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import confine, displays, launch, volumes
from virtd.errors import VirtError, unsupported_flags

# CONNECT_SUPPORTS_FEATURE: what this driver can do. The server itself knows about keepalive and descriptors.
FEATURES = frozenset(
    {
        c.VIR_DRV_FEATURE_FD_PASSING,
        c.VIR_DRV_FEATURE_TYPED_PARAM_STRING,
        c.VIR_DRV_FEATURE_PROGRAM_KEEPALIVE,
        c.VIR_DRV_FEATURE_XML_MIGRATABLE,
        c.VIR_DRV_FEATURE_REMOTE_EVENT_CALLBACK,
        c.VIR_DRV_FEATURE_REMOTE_CLOSE_CALLBACK,
        c.VIR_DRV_FEATURE_NETWORK_UPDATE_HAS_CORRECT_ORDER,
    }
)
# virConnectGetMaxVcpus: what libvirt answers for each type of guest, whatever the machine.
MAX_VCPUS = {"qemu": 16, "kqemu": 1, "kvm": 16}


def _unplug(config: Domain) -> None:
    """Make plain tap devices of all network cards, as libvirt does for a command line that nobody starts.

    What a card would be plugged into is made at a start only. Only its model and its MAC stay.
    """
    config.interfaces = [
        Interface(type="ethernet", mac=one.mac, model=one.model, source=EthernetSource()) for one in config.interfaces
    ]
    assign_pci(config)


class ConnectionInfo(DriverBase):
    """The connection's own properties."""

    def connect_get_type(self) -> str:
        """virConnectGetType."""
        return "QEMU"

    def connect_get_version(self) -> int:
        """virConnectGetVersion: QEMU's version, 1,000,000 times major + 1,000 times minor + release."""
        return self.capabilities.version()

    def connect_get_lib_version(self) -> int:
        """virConnectGetLibVersion: the version of libvirt that virtd implements."""
        return LIBVIRT_VERSION

    def connect_get_hostname(self) -> str:
        """virConnectGetHostname."""
        return socket.getfqdn() if "." in socket.gethostname() else socket.gethostname()

    def connect_get_uri(self) -> str:
        """virConnectGetURI."""
        return f"qemu:///{self.paths.mode}"

    def connect_is_secure(self) -> int:
        """virConnectIsSecure: the driver is local; whether the way to it is, the client knows itself."""
        return 1

    def connect_supports_feature(self, feature: int) -> int:
        """virConnectSupportsFeature (VIR_DRV_FEATURE_*)."""
        return int(feature in FEATURES)

    def connect_get_max_vcpus(self, kind: str | None) -> int:
        """virConnectGetMaxVcpus."""
        count = MAX_VCPUS.get((kind or "qemu").lower())
        if count is None:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"unknown type '{kind}'", domain=c.VIR_FROM_QEMU)
        return count

    def connect_get_capabilities(self) -> str:
        """virConnectGetCapabilities."""
        return self.capabilities.xml()

    def connect_domain_xml_to_native(self, form: str, xml: str, flags: int) -> str:
        """virConnectDomainXMLToNative: the command line that a guest would be started with."""
        unsupported_flags(flags, 0, "qemuConnectDomainXMLToNative")
        if form != "qemu-argv":
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"unsupported config type {form}")
        config = self.read_config(xml, validate=False)
        displays.resolve(self.context, config)
        displays.show_ports(config)
        volumes.look_up(self.context, config)
        _unplug(config)
        assign_aliases(config)
        guest = Guest.of(self.guests.running, config)
        command = build(config, self.capabilities.binary_for(config), launch.setup(self, guest, []))
        command.close()
        environment = confine.environment(guest.private, privileged=self.paths.privileged) | command.environment
        return launch.words(environment, command.argv)

    def connect_get_domain_capabilities(
        self, emulator: str | None, arch: str | None, machine: str | None, virttype: str | None, flags: int
    ) -> str:
        """virConnectGetDomainCapabilities."""
        unsupported_flags(flags, 0, "qemuConnectGetDomainCapabilities")
        return self.capabilities.domain_xml(emulator, arch, machine, virttype)

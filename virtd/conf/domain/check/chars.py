"""Character devices: serial and parallel ports, consoles, channels, redirected USB, and what stands behind them."""

from typing import Any

from virtd import constants as c
from virtd.conf.domain.chardev import (
    Channel,
    CharSource,
    Console,
    DbusSource,
    FileSource,
    NmdmSource,
    PathSource,
    Serial,
    SpicePortSource,
    SpiceVmcSource,
    TcpSource,
    UdpSource,
    UnixSource,
)
from virtd.conf.domain.check.rules import Context, Rules
from virtd.conf.domain.errors import conf_error, internal_error, qemu_error
from virtd.errors import VirtError

NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")

SERIAL_ADDRESSES = {"isa-serial": "isa", "usb-serial": "usb", "pci-serial": "pci", "isa-debug": "isa"}
MODEL_TYPES = {
    "isa-serial": "isa-serial",
    "usb-serial": "usb-serial",
    "pci-serial": "pci-serial",
    "isa-debugcon": "isa-debug",
    "16550a": "system-serial",
    "pl011": "system-serial",
    "spapr-vty": "spapr-vio-serial",
    "sclpconsole": "sclp-serial",
    "sclplmconsole": "sclp-serial",
}
PC_MODELS = ("isa-serial", "pci-serial", "usb-serial", "isa-debugcon")


def check_common_source(device: Any, source: CharSource) -> None:
    """What each back end must know.

    Raises:
        VirtError: of VIR_FROM_DOMAIN.
    """
    if isinstance(source, FileSource | PathSource) and source.path is None:
        raise internal_error("Missing source path attribute for char device")
    if isinstance(source, NmdmSource) and ((source.master is None) != (source.slave is None)):
        raise internal_error("Should define both master and slave path attributes for nmdm device")
    if isinstance(source, TcpSource):
        if source.host is None:
            raise internal_error("Missing source host attribute for char device")
        if source.service is None:
            raise internal_error("Missing source service attribute for char device")
    if isinstance(source, UdpSource) and not source.sends:
        raise internal_error("Missing source service attribute for char device")
    if isinstance(source, UnixSource) and source.path is None and not chosen_path(device):
        raise internal_error("Missing source path attribute for char device")
    if isinstance(source, SpicePortSource | DbusSource):
        if source.channel is None:
            raise conf_error("Missing source channel attribute for char device")
        if not NAME.issuperset(source.channel):
            text = "Invalid character in source channel for char device"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)


def chosen_path(device: Any) -> bool:
    """Whether the path of a socket may be left to the driver."""
    return isinstance(device, Channel) and device.target_type in ("virtio", "xen")


def check_qemu_source(x: Context, source: CharSource) -> None:
    """What QEMU's back ends need.

    Raises:
        VirtError: of VIR_FROM_QEMU.
    """
    reconnect = source.reconnect if isinstance(source, TcpSource | UnixSource) else None
    if reconnect is not None and reconnect.enabled and reconnect.timeout == 0:
        text = "chardev reconnect source timeout cannot be '0'"
        raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
    if isinstance(source, SpiceVmcSource | SpicePortSource) and not x.spice:
        raise qemu_error(f"chardev '{source.kind}' not supported without spice graphics")


def common_source(x: Context, device: Any) -> None:
    """Of a device that has a back end: see check_common_source()."""
    if not shadow(x, device):
        check_common_source(device, device.source)


def qemu_source(x: Context, device: Any) -> None:
    """Of a device that has a back end: see check_qemu_source()."""
    if not shadow(x, device):
        check_qemu_source(x, device.source)


def shadow(x: Context, device: Any) -> bool:
    """Whether it is only another name of the first serial port."""
    domain = x.domain
    return (
        isinstance(device, Console)
        and bool(domain.serials)
        and device is domain.consoles[0]
        and device.target_type == "serial"
    )


def check_serial(x: Context, serial: Serial) -> None:
    """A serial port is what its model is, plugged in where that can be."""
    kind, address = serial.target_type, serial.info.address
    wanted = SERIAL_ADDRESSES.get(kind or "")
    if wanted is not None and address is not None and address.kind != wanted:
        raise qemu_error(f"Target type '{kind}' requires address type '{wanted}'")
    needed = MODEL_TYPES.get(serial.model or "")
    if needed is not None and kind != needed:
        raise qemu_error(f"Target model '{serial.model}' requires target type '{needed}'")
    if serial.model is not None and serial.model not in PC_MODELS:
        raise qemu_error(
            f"Serial device with target type '{kind}' and target model '{serial.model}' not compatible with guest "
            "architecture or machine type"
        )


COMMON: Rules = (common_source,)
"""What libvirt asks of any device with a back end."""

QEMU: Rules = (qemu_source,)
SERIAL: Rules = (qemu_source, check_serial)

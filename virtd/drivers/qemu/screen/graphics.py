"""Connections to a guest's screen that come as descriptors instead of over the network."""

import os
import socket

from virtd import constants as c
from virtd.conf.domain.display import SpiceGraphics, VncGraphics
from virtd.drivers.base import Reply
from virtd.drivers.qemu.lifecycle import Lifecycle
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain


class Graphics(Lifecycle):
    """virDomainOpenGraphics, with the client's descriptor or with ours."""

    def domain_open_graphics(self, domain: Domain, index: int, flags: int, *, fds: list[int]) -> None:
        """virDomainOpenGraphics: QEMU serves its screen over the client's descriptor."""
        unsupported_flags(flags, c.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH, "qemuDomainOpenGraphics")
        if len(fds) != 1:
            raise VirtError(c.VIR_ERR_INVALID_ARG, "exactly one descriptor is expected")
        self._open(domain, index, flags, fds[0], "virDomainOpenGraphics")
        os.close(fds[0])

    def domain_open_graphics_fd(self, domain: Domain, index: int, flags: int) -> Reply:
        """virDomainOpenGraphicsFD: a descriptor over which QEMU serves its screen."""
        unsupported_flags(flags, c.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH, "qemuDomainOpenGraphicsFD")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._open(domain, index, flags, theirs.fileno(), "virDomainOpenGraphicsFD")
            except BaseException:
                ours.close()
                raise
        return Reply(fds=[ours.detach()])

    def _open(self, domain: Domain, index: int, flags: int, descriptor: int, call: str) -> None:
        with self._changing(domain, call) as (entry, guest):
            displays = self.live(entry).graphics
            if index >= len(displays):
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"No graphics backend with index {index}")
            display = displays[index]
            protocol = "vnc" if isinstance(display, VncGraphics) else "spice"
            if not isinstance(display, VncGraphics | SpiceGraphics):
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "Can only open VNC or SPICE graphics backends")
            skip = bool(flags & c.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
            with guest.monitor() as monitor:
                monitor.execute("getfd", {"fdname": "graphicsfd"}, [descriptor])
                monitor.execute("add_client", {"protocol": protocol, "fdname": "graphicsfd", "skipauth": skip})

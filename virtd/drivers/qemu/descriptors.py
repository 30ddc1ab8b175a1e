"""Descriptors that a client hands over for the disks of a guest (<source fdgroup=…>), kept as long as the connection.

The client opened the files: neither virtd nor QEMU's user need be able to. A start by the same connection passes them
on, as often as the guest is started.
"""

import os

from virtd import constants as c
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain

_FLAGS = c.VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_RESTORE | c.VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_WRITABLE


class Descriptors(DriverBase):
    """virDomainFDAssociate."""

    def domain_fd_associate(self, domain: Domain, name: str, flags: int, *, fds: list[int]) -> None:
        """virDomainFDAssociate: the flags are about labels, which guests here have none of."""
        unsupported_flags(flags, _FLAGS, "qemuDomainFDAssociate")
        if not fds:
            text = "nfds in virDomainFDAssociate must not be zero"
            raise VirtError.invalid_argument("virDomainFDAssociate", "nfds", text, domain=c.VIR_FROM_DOMAIN)
        groups = self.descriptors.setdefault(self.guests.find(domain).uuid, {})
        _close(groups.pop(name, []))
        groups[name] = fds

    def clean(self) -> bool:
        return super().clean() and not self.descriptors

    def close(self) -> None:
        for groups in self.descriptors.values():
            for fds in groups.values():
                _close(fds)
        self.descriptors.clear()
        super().close()


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())

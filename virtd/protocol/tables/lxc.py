"""The lxc program: its one procedure hands out the namespaces of a container.

The notation is that of virtd.protocol.tables.remote, whose shared types (domain) are used here too.
"""

# ruff: noqa: E501
from functools import partial

from virtd.protocol.procedure import CHANGE, Procedure

NUMBER = 0x00068000
VERSION = 1

P = partial(Procedure, "lxc")

# fmt: off
LIMITS: dict[str, int] = {}

TYPES: dict[str, str] = {}

PROCEDURES = (
    P(1, "DOMAIN_OPEN_NAMESPACE", CHANGE, "(dom: domain, flags: uint)", "virDomainLxcOpenNamespace", "domain:open_namespace", fds="reply"),
)

"""A driver whose guests do what their names say, for all models alike.

    "sleep 2"    the call takes two seconds
    "nest 20"    the call connects to the server that runs it, and makes the same call there with 19

The URI is model:///system. `domain_get_info` is done in place by every model, and so is `domain_lookup_by_name`;
`domain_create` is one of those which virtd gives to a child.
"""

import select
from typing import Any

import virtd.drivers
from virtd.drivers.base import Context, Driver
from virtd.drivers.remote.address import Address
from virtd.drivers.remote.driver import RemoteDriver
from virtd.protocol.records import Domain

UUID = b"a-models--guest-"
URI = "model:///system"


def socket_of(root: str) -> str:
    """Where a model listens: where virtd --root would."""
    return f"{root}/run/libvirt/libvirt-sock"


class ModelDriver(Driver):
    """See the top of this file."""

    def connect_get_lib_version(self) -> int:
        return 9_000_000

    def domain_get_info(self, dom: Any) -> tuple[int, ...]:
        return (1, 1048576, 1048576, 2, 7_000_000_000)

    def domain_lookup_by_name(self, name: str) -> Domain:
        self._act("domain_lookup_by_name", name, lambda rest: rest)
        return Domain(name, UUID, -1)

    def domain_create(self, dom: Any) -> None:
        self._act("domain_create", dom.name, lambda rest: Domain(rest, UUID, -1))

    def _act(self, method: str, name: str, argument: Any) -> None:
        verb, _, number = name.partition(" ")
        if verb == "sleep":
            select.select([], [], [], float(number))
        elif verb == "nest" and int(number):
            here = f"{self.context.paths.sockets}/libvirt-sock"
            identity = self.context.identity._replace(transport="local")
            context: Context = self.context._replace(identity=identity)
            server = RemoteDriver(context, Address(URI, URI, "unix", socket=here))
            try:
                getattr(server, method)(argument(f"nest {int(number) - 1}"))
            finally:
                server.close()


def install() -> None:
    """Let this be the only driver there is."""
    virtd.drivers.local_drivers = lambda scheme: [ModelDriver] if scheme == "model" else None
    virtd.drivers.LOCAL_SCHEMES = ("model",)

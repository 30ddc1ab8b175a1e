"""The programs: each a number, a version and its table of procedures, found by number, name or method.

`PROGRAMS[0x20008086].procedures[273]`, `REMOTE.named["CONNECT_LIST_ALL_DOMAINS"]` and
`METHODS["connect_list_all_domains"]` are one and the same.
"""

from __future__ import annotations

from virtd.protocol.procedure import Procedure
from virtd.protocol.tables import admin, keepalive, lxc, qemu, remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class Program:
    """One program of the protocol.

    Attributes:
        name: "remote", "qemu", "lxc", "admin" or "keepalive".
        number, version: what the header of its messages carries.
        procedures: its procedures and events by number.
        named: the same by name.
    """

    def __init__(self, name: str, table: ModuleType) -> None:
        self.name = name
        self.number: int = table.NUMBER
        self.version: int = table.VERSION
        self.procedures: dict[int, Procedure] = {p.number: p for p in table.PROCEDURES}
        self.named: dict[str, Procedure] = {p.name: p for p in table.PROCEDURES}

    def __repr__(self) -> str:
        return f"<program {self.name} {self.number:#x}>"


REMOTE = Program("remote", remote)
QEMU = Program("qemu", qemu)
LXC = Program("lxc", lxc)
ADMIN = Program("admin", admin)
KEEPALIVE = Program("keepalive", keepalive)

PROGRAMS: dict[int, Program] = {p.number: p for p in (REMOTE, QEMU, LXC, ADMIN, KEEPALIVE)}
BY_NAME: dict[str, Program] = {p.name: p for p in PROGRAMS.values()}
METHODS: dict[str, Procedure] = {
    procedure.method: procedure for program in PROGRAMS.values() for procedure in program.procedures.values()
}

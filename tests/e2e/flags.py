"""What a server says to a flag that nobody knows, for every procedure that takes flags.

python3 -m tests.e2e.flags URI >tests/e2e/expected/flags.json

asks a server (libvirtd 9.0.0, when the file was written) and prints {procedure: [[code, domain, text], …]}, an answer
for each of UNKNOWN, null for a call that succeeds. The calls are made over the wire, so that no library of the client's
checks anything first. What the calls are about is made, and removed again.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from virtd.drivers import open_connection
from virtd.drivers.base import Connection, Context, Identity, Reply
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol.notation import Field
from virtd.protocol.procedure import EVENT, Procedure
from virtd.protocol.programs import QEMU, REMOTE
from virtd.protocol.records import (
    DomainCheckpoint,
    DomainSnapshot,
    Interface,
    NetworkPort,
    NodeDevice,
    Nwfilter,
    NwfilterBinding,
    StorageVol,
    TypedParam,
    TypedValue,
)
from virtd.state import paths

# One flag that nobody knows; nearly all there could be, so that the answer tells which of them are known.
UNKNOWN: Final = (1 << 30, 0xFFFFFFF0, 0xFFFFFFFA)
NAME: Final = "flags"
XML: Final = {
    "domain": f"<domain type='qemu'><name>{NAME}</name><memory>16384</memory><os><type>hvm</type></os></domain>",
    "network": f"<network><name>{NAME}</name></network>",
    "storage_pool": f"<pool type='dir'><name>{NAME}</name><target><path>/tmp</path></target></pool>",
    "secret": "<secret ephemeral='yes' private='no'/>",
}
# Not asked: what the connection itself is made of, and calls whose flags are another kind of number.
LEFT_OUT: Final = ("CONNECT_OPEN", "CONNECT_SET_IDENTITY")
_ABSENT: Final = ("uri", "key")  # these would be looked at before the flags
_PLAIN: Final = {"string": "x", "uuid": bytes(16), "typed_param": TypedParam("x", TypedValue(1, 1))}


def procedures() -> list[Procedure]:
    """Those that take flags."""
    return [
        procedure
        for program in (REMOTE, QEMU)
        for procedure in program.procedures.values()
        if procedure.kind != EVENT and procedure.name not in LEFT_OUT and "flags" in codec.argument_names(procedure)
    ]


@contextmanager
def connected(uri: str) -> Iterator[Connection]:
    """A connection to a server."""
    pid = os.getpid()
    connection = open_connection(uri, Context(paths.find(), Identity(os.geteuid(), os.getegid(), pid, "local"), pid))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def subjects(connection: Connection) -> Iterator[dict[str, Any]]:
    """What the calls are about, by the types of the protocol."""

    def call(name: str, *arguments: Any) -> Any:
        return connection.require(name, name)(*arguments)

    domain = call("domain_define_xml", XML["domain"])
    network = call("network_define_xml", XML["network"])
    pool = call("storage_pool_define_xml", XML["storage_pool"], 0)
    secret = call("secret_define_xml", XML["secret"], 0)
    try:
        yield {
            "domain": domain,
            "network": network,
            "storage_pool": pool,
            "secret": secret,
            "storage_vol": StorageVol(NAME, "none", "/tmp/none"),
            "node_device": NodeDevice("computer"),
            "interface": Interface("lo", ""),
            "nwfilter": Nwfilter("none", bytes(16)),
            "nwfilter_binding": NwfilterBinding("none", "none"),
            "network_port": NetworkPort(network, bytes(16)),
            "domain_snapshot": DomainSnapshot("none", domain),
            "domain_checkpoint": DomainCheckpoint("none", domain),
        }
    finally:
        call("domain_undefine", domain)
        call("network_undefine", network)
        call("storage_pool_undefine", pool)
        call("secret_undefine", secret)


def _value(field: Field, found: dict[str, Any], flags: int) -> Any:
    if field.name == "flags":
        return flags
    kind = field.type
    if kind.base == "opaque":
        return bytes(kind.bound if kind.array == "[" else 1)
    if field.name in _ABSENT and field.type.array == "?":
        return None
    value = found.get(kind.base, _PLAIN.get(kind.base, 1))
    return [value] if kind.array in ("<", "[") else value


def ask(connection: Connection, procedure: Procedure, found: dict[str, Any]) -> list[list[Any] | None]:
    """What the server says to calls of a procedure with each of the unknown flags."""
    return [_ask(connection, procedure, found, flags) for flags in UNKNOWN]


def _ask(connection: Connection, procedure: Procedure, found: dict[str, Any], flags: int) -> list[Any] | None:
    arguments, _ = codec.signature(procedure)
    with socket.socket(socket.AF_UNIX) as descriptor:
        passed = {"fds": [descriptor.fileno()]} if procedure.fds_in_call else {}
        try:
            call = connection.require(procedure.method, procedure.api)
            answer = call(*[_value(one, found, flags) for one in arguments], **passed)
        except VirtError as error:
            return [error.code, error.domain, error.message]
    if isinstance(answer, Reply):
        for descriptor in [*answer.fds, *([answer.stream.descriptor] if answer.stream is not None else [])]:
            os.close(descriptor)
    return None


def main(uri: str) -> None:
    with connected(uri) as connection, subjects(connection) as found:
        answers = {procedure.method: ask(connection, procedure, found) for procedure in procedures()}
    lines = [f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items()]
    print("{", ",\n".join(lines), "}", sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

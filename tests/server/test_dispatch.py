"""Answers that are kept: given again for as long as what they follow from is the same, and no longer."""

import uuid
from pathlib import Path
from typing import Any

from virtd.drivers import Connection
from virtd.drivers.base import Context, Driver, Identity
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol.framing import Framer
from virtd.protocol.messages import ERROR, OK, Message, make_call
from virtd.protocol.programs import METHODS
from virtd.protocol.records import Domain
from virtd.server import auth
from virtd.server.dispatch import Dispatcher
from virtd.server.session import Session
from virtd.state.paths import below

LIST = METHODS["connect_list_all_domains"]


class Listing(Driver):
    LISTS = frozenset({"connect_list_all_domains"})

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.view: list[str] = []
        self.asked = 0

    def basis(self) -> object:
        if "broken" in self.view:
            raise VirtError(1, "broken")
        return self.view

    def connect_list_all_domains(self, need_results: int, flags: int) -> tuple[list[Domain], int]:
        self.asked += 1
        found = [Domain(name, uuid.uuid5(uuid.NAMESPACE_URL, name).bytes, flags) for name in self.view]
        return found, len(found)


class Client:
    """A client of one driver, within this process."""

    def __init__(self, directory: Path) -> None:
        paths = below(str(directory), privileged=True)
        self.driver = Listing(Context(paths, Identity(0, 0, 0), 0))
        session = Session(auth.Peer(Identity(0, 0, 0), "root@test"), paths)
        session.connection = Connection("test:///", [self.driver])
        self.dispatcher = Dispatcher(session, False)
        self.serial = 0

    def call(self, flags: int) -> Any:
        """The names that a list has, or the error's status."""
        self.serial += 1
        call = self._read(make_call(LIST, self.serial, (1, flags)).to_bytes())
        entry, args = self.dispatcher.prepare(call)
        reply = self._read(self.dispatcher.perform(entry, call, args).data)
        assert (reply.procedure, reply.serial) == (LIST.number, self.serial)
        if reply.status == ERROR:
            return ERROR
        assert reply.status == OK
        domains, count = codec.decode_result(LIST, reply.payload)
        assert count == len(domains)
        return [(domain.name, domain.id) for domain in domains]

    @staticmethod
    def _read(data: bytes) -> Message:
        framer = Framer()
        framer.receive(data)
        message = framer.next_message()
        assert message is not None
        return message


def test_a_list_is_made_once_for_as_long_as_nothing_changes(tmp_path: Path) -> None:
    client = Client(tmp_path)
    driver = client.driver
    driver.view = ["a"]
    assert [client.call(0), client.call(0), driver.asked] == [[("a", 0)], [("a", 0)], 1]
    # Other arguments, another answer.
    assert [client.call(7), driver.asked] == [[("a", 7)], 2]
    # The same content is not the same: only the object counts.
    driver.view = ["a"]
    assert [client.call(7), driver.asked] == [[("a", 7)], 3]
    driver.view = ["a", "b"]
    assert [client.call(7), driver.asked] == [[("a", 7), ("b", 7)], 4]
    driver.view = ["broken"]
    assert [client.call(7), client.call(7), driver.asked] == [ERROR, ERROR, 4]
    driver.view = ["a"]
    assert client.call(7) == [("a", 7)]

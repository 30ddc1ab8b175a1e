"""A driver for tests of the server: its guests do what their names say.

    virtd with the fake driver:   python3 tests/server/fake.py --root DIR ...

    "sleep 0.5"     the call takes so long
    "hang"          it never ends
    "die"           its process is killed
    "bug"           it raises what nobody expects
    "error"         it raises a VirtError without a domain
    "mark FILE"     the process's number is written to a file
    "leak FILE"     the same, and a descriptor stays open
    "spawn FILE"    the same, and a child lives on for a while
    "nested 3 SOCK" it makes a connection to the server of that socket, and the same call there with one less
    anything else   it returns at once

The URI is fake:///system. The same names work for instant, query and change procedures.
"""

import os
import select
import signal
import socket
import sys
import time

import virtd.drivers
import virtd.server.calls
import virtd.server.worker
from virtd import constants as c
from virtd import deadlines
from virtd.drivers.base import Driver, Event, Reply, Stream
from virtd.errors import VirtError
from virtd.protocol.records import Domain
from virtd.server.main import main

UUID = b"fakefakefakefake"


def act(name: str) -> None:
    """Do what a guest's name says."""
    verb, _, rest = name.partition(" ")
    if verb in ("sleep", "hang"):
        seconds = float(rest) if rest else 1e6
        # As a driver waits: for something, within the bound of the call.
        left = deadlines.remaining(seconds)
        reader, _writer = socket.socketpair()
        select.select([reader], [], [], left)
        if left < seconds:
            raise deadlines.DeadlineExceeded(f"{name} did not answer")
    elif verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "bug":
        raise ZeroDivisionError("a bug")
    elif verb == "error":
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, rest or "as asked")
    elif verb == "mark":
        with open(rest, "a") as file:
            file.write(f"{os.getpid()}\n")
    elif verb == "leak":
        os.open("/dev/null", os.O_RDONLY)
        act(f"mark {rest}")
    elif verb == "spawn":
        if not os.fork():
            act("sleep 0.5")
            os._exit(0)
        act(f"mark {rest}")
    elif verb == "nested":
        depth, _, sock = rest.partition(" ")
        if int(depth):
            from tests.server.harness import Client, guest

            with Client(sock, timeout=100) as client:
                client.call("domain_create", guest(f"nested {int(depth) - 1} {sock}"))
    elif verb == "slowmark":
        act("sleep 1")
        act(f"mark {rest}")


class FakeDriver(Driver):
    error_domain = c.VIR_FROM_TEST
    REPEATED = frozenset({"domain_suspend"})

    def __init__(self, context):
        super().__init__(context)
        self.events = None
        self.sent = 0
        self.kept = []

    # instant
    def connect_get_lib_version(self):
        return 9_000_000

    def connect_get_type(self):
        return f"{os.getpid()}"

    def connect_get_hostname(self):
        return repr(self.context.identity)

    def connect_get_sysinfo(self, flags):
        return " ".join(sorted(sys.modules))

    def domain_lookup_by_name(self, name):
        return Domain(name, UUID, -1)

    def domain_lookup_by_uuid(self, uuid):
        return Domain("any", uuid, 1)

    def domain_get_info(self, dom):
        act(dom.name)
        return (1, 2, 3, 4, 5)

    def domain_get_xml_desc(self, dom, flags):
        return "x" * int(dom.name)

    # query
    def connect_get_version(self):
        act("sleep 0.3")
        return 7

    def domain_get_job_info(self, dom):
        act(dom.name)
        return (0,) * 12

    def domain_memory_stats(self, dom, maxStats, flags):  # noqa: N803
        act(dom.name)
        return [(os.getpid(), 0)]

    # change
    def domain_create(self, dom):
        act(dom.name)

    def domain_suspend(self, dom):
        act(dom.name)

    def domain_destroy(self, dom):
        return 5  # not what the table says

    def domain_create_with_files(self, dom, flags, fds):
        text = ",".join(str(os.fstat(fd).st_ino) for fd in fds)
        return Domain(text, UUID, os.getpid())

    def domain_open_graphics_fd(self, dom, idx, flags):
        reader, writer = os.pipe()
        os.write(writer, b"from the guest")
        os.close(writer)
        return Reply(None, fds=[reader])

    def domain_open_console(self, dom, dev_name, flags):
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            # The guest: an echo that ends with its console.
            os.closerange(3, ours.fileno())
            ours.close()
            while (data := theirs.recv(65536)) and data != b"quit":
                theirs.sendall(data.upper())
            os._exit(0)
        theirs.close()
        return Reply(None, stream=Stream(ours.detach()))

    def storage_vol_download(self, vol, offset, length, flags):
        ours, theirs = socket.socketpair()

        def work():
            left = length
            while left:
                chunk = bytes([left % 251]) * min(left, 65536)
                theirs.sendall(chunk)
                left -= len(chunk)
            theirs.close()
            act(vol.name)

        return Reply(None, stream=Stream(ours.detach(), work))

    def storage_vol_upload(self, vol, offset, length, flags):
        ours, theirs = socket.socketpair()

        def work():
            total = 0
            while data := theirs.recv(65536):
                total += len(data)
                if total > 1 << 20:
                    act(vol.name)
            with open(vol.key, "w") as file:
                file.write(str(total))

        return Reply(None, stream=Stream(ours.detach(), work))

    def domain_screenshot(self, dom, screen, flags):
        return Reply("image/png", stream=Stream(os.open("/proc/self/exe", os.O_RDONLY)))

    # events
    def connect_domain_event_callback_register_any(self, event_id, dom):
        if self.events is None:
            self.events = socket.socketpair()
            self.events[1].send(b"x")
        self.wanted = int(dom.name) if dom else 1
        return 1

    def connect_domain_event_callback_deregister_any(self, callback_id):
        for end in self.events or ():
            end.close()
        self.events = None

    def event_fd(self):
        return self.events[0].fileno() if self.events else None

    def read_events(self):
        found = []
        while self.sent < self.wanted and len(found) < 16:
            self.sent += 1
            dom = Domain(f"{self.sent}", UUID, 1)
            found.append(Event("remote", "DOMAIN_EVENT_CALLBACK_REBOOT", (1, (dom,))))
        if not found:
            select.select([self.events[0]], [], [], 0) and self.events[0].recv(1)
        return found

    def close(self):
        if path := os.environ.get("FAKE_CLOSED"):
            with open(path, "a") as file:
                file.write(f"{os.getpid()} {time.time()}\n")


def drivers(scheme):
    return [FakeDriver] if scheme in ("fake", "qemu", "test") else None


def fork_when_allowed():
    """Let fork() fail while a file exists: the limits of the system do not bind root."""
    path, real = os.environ.get("FAKE_NO_FORK"), os.fork
    if path is None:
        return

    def fork():
        if os.path.exists(path):
            raise BlockingIOError(11, os.strerror(11))
        return real()

    os.fork = fork


if __name__ == "__main__":
    # However slow the machine is: a process waits long enough for another call.
    virtd.server.calls.KEEP = float(os.environ.get("FAKE_KEEP", "100"))
    virtd.server.calls.AGE = 100.0
    virtd.server.worker.ANONYMOUS = float(os.environ.get("FAKE_ANONYMOUS", "60"))
    fork_when_allowed()
    virtd.drivers.local_drivers = drivers
    virtd.drivers.LOCAL_SCHEMES = ("fake", "qemu", "test")
    main(sys.argv[1:])

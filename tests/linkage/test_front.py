"""virtd --remote: the same for its clients as the server behind it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.drivers.remote.conftest import Libvirtd, libvirtd
from tests.guests import xml
from tests.helpers.instance import Instance
from tests.helpers.waiting import wait_ended, wait_for
from tests.linkage.conftest import NOBODY, Sshd, talk
from tests.server.harness import TOP, URI, Client, Server, children, guest, title
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.framing import Framer
from virtd.protocol.messages import ERROR, STREAM, Message, decode_error
from virtd.protocol.programs import METHODS
from virtd.protocol.records import TypedParam, TypedValue
from virtd.protocol.streams import ClientStream
from virtd.server import front as front_module

__all__ = ["libvirtd"]

XML = "<domain type='qemu'><name>quiet</name><memory>16384</memory><os><type arch='x86_64'>hvm</type></os></domain>"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def uri_of(server: Server) -> str:
    return f"fake+unix:///system?socket={server.sock}"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers with the fake driver, and fronts; they end with the test."""
    made: list[Server] = []

    def start(*arguments: str, **options: Any) -> Server:
        made.append(Server(tmp_path / f"r{len(made)}", *arguments, **options))
        return made[-1]

    yield start
    for server in reversed(made):
        server.stop()


@pytest.fixture
def owner(serve: Callable[..., Server]) -> Server:
    """The server that owns the guests."""
    return serve()


@pytest.fixture
def front(serve: Callable[..., Server], owner: Server) -> Server:
    """A front before it."""
    return serve("--remote", "--remote-uri", uri_of(owner), config='unix_sock_rw_perms = "0777"\n')


def test_calls_and_errors(front: Server, owner: Server) -> None:
    with front.client() as client:
        assert client.call("connect_get_lib_version") == 9_000_000
        assert client.pid() in owner.serving()
        with pytest.raises(VirtError) as caught:
            client.call("domain_create", guest("error of the driver"))
        assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_OPERATION_FAILED, c.VIR_FROM_TEST)
        with pytest.raises(VirtError, match="connection already open"):
            client.call("connect_open", URI, 0)
        # Answers overtake; what hangs holds up nobody.
        slow = client.send("domain_create", guest("sleep 0.5"))
        assert client.call("domain_get_info", guest("web")) == (1, 2, 3, 4, 5)
        client.reply(slow)
        assert client.ping() < 5
        client.call("connect_close")
        assert client.receive() is None


def test_unknown_programs_go_through(front: Server) -> None:
    with front.client() as client:
        client.raw(Message(0x12345678, 1, 1, 0, 77).to_bytes())
        answer = client.receive()
        assert answer is not None
        assert (answer.program, answer.serial, answer.status) == (0x12345678, 77, ERROR)
        assert decode_error(answer.payload).message.endswith("Cannot find program 305419896 version 1")


def test_titles_say_which_is_which(front: Server, owner: Server) -> None:
    with front.client() as client:
        assert title(front.pid).startswith("virtd: remote: accepting ")
        assert title(owner.pid).startswith("virtd: accepting ")
        [name] = wait_for(
            lambda: [text for text in front.workers().values() if text.startswith("virtd: remote: front for ")]
        )
        me = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
        assert name == f"virtd: remote: front for {me}@unix {URI}, by {owner.sock}"
        [name] = owner.serving().values()
        assert name == f"virtd: worker for {me} by {me}@unix fake:///system: idle"
        assert client.ping() < 5


def test_the_owner_knows_who_the_client_is(front: Server, nobody: int) -> None:
    code = (
        f"import os; os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        "from tests.server.harness import Client\n"
        f"client = Client({front.sock!r})\n"
        "print(os.getpid(), client.call('connect_get_hostname'))"
    )
    for path in (front.root, *front.root.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/tmp") and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    pid, _, said = result.stdout.strip().partition(" ")
    assert said == f"Identity(uid={NOBODY}, gid={NOBODY}, pid={pid}, transport='unix', read_only=False)", result.stderr


@root_only
def test_who_may_speak_for_others(front: Server, owner: Server) -> None:
    params = [TypedParam("unix-user-id", TypedValue(c.VIR_TYPED_PARAM_ULLONG, NOBODY))]
    with owner.client() as client:
        client.call("connect_set_identity", params, 0)
        assert f"uid={NOBODY}, gid=-1, pid=0" in client.call("connect_get_hostname")
        # Once somebody else, nobody comes back.
        back = [TypedParam("unix-user-id", TypedValue(c.VIR_TYPED_PARAM_ULLONG, 0))]
        with pytest.raises(VirtError, match="may not speak for others") as caught:
            client.call("connect_set_identity", back, 0)
        assert caught.value.code == c.VIR_ERR_ACCESS_DENIED
    with owner.client() as client:
        assert "uid=0" in client.call("connect_get_hostname")
        for wrong in (
            [TypedParam("unix-user-id", TypedValue(c.VIR_TYPED_PARAM_STRING, "0"))],
            [TypedParam("shoe-size", TypedValue(c.VIR_TYPED_PARAM_INT, 43))],
        ):
            with pytest.raises(VirtError, match="parameter") as caught:
                client.call("connect_set_identity", wrong, 0)
            assert caught.value.code == c.VIR_ERR_INVALID_ARG
        with pytest.raises(VirtError, match="unsupported flags"):
            client.call("connect_set_identity", [], 1)
    # By a front of root, somebody else must not become root.
    for path in (front.root, *front.root.parents):
        if path.stat().st_uid == 0 and path not in (Path("/tmp"), Path("/")):
            path.chmod(path.stat().st_mode | 0o011)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with front.client() as client:
                try:
                    client.call("connect_set_identity", back, 0)
                except VirtError as error:
                    status = 0 if error.code == c.VIR_ERR_ACCESS_DENIED else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_descriptors_both_ways(front: Server, tmp_path: Path) -> None:
    with front.client() as client, open("/dev/null") as null, open("/dev/zero") as zero:
        made = client.call("domain_create_with_files", guest("web"), 0, fds=[null.fileno(), zero.fileno()])
        assert made.name == f"{os.fstat(null.fileno()).st_ino},{os.fstat(zero.fileno()).st_ino}"
        client.call("domain_open_graphics_fd", guest("web"), 0, 0)
        [descriptor] = client.fds
        with open(descriptor, "rb") as pipe:
            assert pipe.read() == b"from the guest"


def test_no_descriptors_over_tcp(serve: Callable[..., Server], owner: Server) -> None:
    there = serve("--listen-tcp", "127.0.0.1:0")
    port = int(there.log.read_text().partition("127.0.0.1:")[2].split()[0].rstrip(","))
    front = serve("--remote", "--remote-uri", f"fake+tcp://127.0.0.1:{port}/system")
    with front.client() as client, open("/dev/null") as null:
        with pytest.raises(VirtError, match="fd passing is not supported by this connection"):
            client.call("domain_create_with_files", guest("web"), 0, fds=[null.fileno()])
        assert client.call("connect_get_lib_version") == 9_000_000
    near = serve("--remote", "--remote-uri", uri_of(owner), "--listen-tcp", "127.0.0.1:0")
    port = int(near.log.read_text().partition("127.0.0.1:")[2].split()[0].rstrip(","))
    with near.client(("127.0.0.1", port)) as client:
        assert "uid=-1" in client.call("connect_get_hostname")
        with pytest.raises(VirtError, match="Sending file descriptors is not supported on this socket"):
            client.call("domain_open_graphics_fd", guest("web"), 0, 0)
        assert client.call("connect_get_lib_version") == 9_000_000


def test_events_in_order(front: Server) -> None:
    with front.client() as client:
        client.call("connect_domain_event_callback_register_any", 1, guest("3000"))
        for _ in range(3000):
            client.inbox.append(client.receive()) if len(client.inbox) < 3000 else None
        procedure = METHODS["domain_event_callback_reboot"]
        assert all(message.procedure == procedure.number for message in client.inbox)


def test_streams(front: Server) -> None:
    with front.client() as client:
        call = client.send("storage_vol_download", ("pool", "web", "/k"), 0, 8 << 20, 0)
        client.reply(call)
        stream = ClientStream(call)
        size = 0
        while size < 8 << 20:
            message = client.receive()
            assert message is not None
            assert message.type == STREAM
            event = stream.receive(message)
            size += len(event.data) if event else 0
        assert size == 8 << 20


def test_a_client_that_takes_nothing_fills_no_memory(front: Server) -> None:
    with front.client() as client:
        client.send("storage_vol_download", ("pool", "web", "/k"), 0, 64 << 20, 0)
        [pid] = [pid for pid, text in front.workers().items() if "front for" in text]
        assert client.ping() < 5
        assert _resident(pid) < 60 << 20


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("uri", ["qemu+ssh://h/system", "qemu+unix:///system", "qemu://h/system", "remote:///system"])
def test_remote_uris_are_refused(front: Server, owner: Server, uri: str) -> None:
    for server in (front, owner):
        with server.client(opened=False) as client:
            with pytest.raises(VirtError, match="a server opens no connection to another server") as caught:
                client.call("connect_open", uri, 0)
            assert caught.value.code == c.VIR_ERR_NO_CONNECT
            client.call("connect_open", URI, 0)


def test_itself_on_the_command_line(tmp_path: Path) -> None:
    sock = tmp_path / "run/libvirt/libvirt-sock"
    for options in (["--remote-uri", f"qemu+unix:///system?socket={sock}"], []):
        result = subprocess.run(
            [sys.executable, "-m", "virtd.server.main", "--root", str(tmp_path), "--remote", *options],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "PYTHONPATH": str(TOP), "VIRTD_ROOT": str(tmp_path)},
            check=False,
        )
        assert result.returncode == 2
        assert result.stderr == (
            f"virtd: --remote would forward to itself, for {sock} is its own; use --root, or --remote-uri\n"
        )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--remote-uri", "qemu:///system"], "--remote-uri goes with --remote"),
        (["--remote", "--remote-uri", "qemu+bogus:///system"], "transport in URL not recognised"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], text: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "virtd.server.main", "--root", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=TOP,
        check=False,
    )
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert text in line


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_ring_is_found(serve: Callable[..., Server], tmp_path: Path, number: int) -> None:
    """Fronts that forward to each other, or one to itself by a name that hides it: an error at the first call."""
    link = tmp_path / "hidden"
    uris = [
        f"fake+unix:///system?socket={tmp_path}/r{(at + 1) % number}/run/libvirt/libvirt-sock" for at in range(number)
    ]
    if number == 1:
        uris = [f"fake+unix:///system?socket={link}"]
        link.symlink_to(tmp_path / "r0/run/libvirt/libvirt-sock")
    fronts = [serve("--remote", "--remote-uri", uri) for uri in uris]
    with fronts[0].client(opened=False) as client:
        with pytest.raises(VirtError, match="virtd --remote forwards to itself by ") as caught:
            client.call("connect_open", URI, 0)
        assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED
    assert sum(len(children(front.pid)) for front in fronts) < 12 * number


def test_fronts_in_a_row(serve: Callable[..., Server], owner: Server) -> None:
    row = [owner]
    for _ in range(front_module.HOPS):
        row.append(serve("--remote", "--remote-uri", uri_of(row[-1])))
    with row[-1].client() as client:
        assert client.call("connect_get_lib_version") == 9_000_000
    row.append(serve("--remote", "--remote-uri", uri_of(row[-1])))
    with row[-1].client(opened=False) as client, pytest.raises(VirtError, match="8 servers forward to each other"):
        client.call("connect_open", URI, 0)


def test_nobody_behind_it(serve: Callable[..., Server], tmp_path: Path) -> None:
    front = serve("--remote", "--remote-uri", f"fake+unix:///system?socket={tmp_path}/none")
    with front.client(opened=False) as client:
        for _ in range(2):
            with pytest.raises(VirtError) as caught:
                client.call("connect_open", URI, 0)
            assert caught.value.message == f"Failed to connect socket to '{tmp_path}/none': No such file or directory"
        client.call("connect_close")
        assert client.receive() is None


def test_the_owner_dies(front: Server, owner: Server) -> None:
    with front.client() as client:
        pid = client.pid()
        call = client.send("domain_create", guest("hang"))
        client.ping()
        [hanging] = wait_for(lambda: children(pid))
        os.kill(pid, signal.SIGKILL)
        os.kill(hanging, signal.SIGKILL)  # a change goes on without its worker
        with pytest.raises(VirtError, match=f"{owner.sock} has closed the connection") as caught:
            client.reply(call)
        assert caught.value.code == c.VIR_ERR_SYSTEM_ERROR
        assert client.receive() is None


def test_the_client_or_the_front_dies(front: Server, owner: Server) -> None:
    for victim in ("client", "front"):
        client = front.client()
        worker = client.pid()
        if victim == "front":
            [pid] = [pid for pid, text in front.workers().items() if "front for" in text]
            os.kill(pid, signal.SIGKILL)
        else:
            client.close()
        wait_for(lambda worker=worker: not title(worker).startswith("virtd: worker for"))
        client.close()


def test_it_ends_when_told(front: Server) -> None:
    with front.client() as client:
        call = client.send("domain_create", guest("sleep 0.5"))
        client.ping()
        front.signal(signal.SIGTERM)
        client.reply(call)
        assert client.receive() is None
    assert front.wait() == 0


def test_read_only(serve: Callable[..., Server], front: Server, owner: Server) -> None:
    if os.geteuid():
        pytest.skip("a session has no read-only socket")
    # The owner's address is that of its read-write socket: the front sees to it.
    with Client(front.ro) as client, pytest.raises(VirtError, match="read only access prevents virDomainCreate"):
        client.call("domain_create", guest("web"))


def test_inetd(owner: Server, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "virtd.server.main", "--root", str(tmp_path / "inetd"), "--inetd", "--remote"]
    with theirs:
        server = subprocess.Popen([*command, "--remote-uri", uri_of(owner)], stdin=theirs, stdout=theirs, cwd=TOP)
    with Client(ours) as client:
        assert client.pid() in owner.serving()
    assert server.wait(20) == 0


def test_what_was_asked_before_the_end_is_answered(owner: Server, tmp_path: Path) -> None:
    """Standard input is a pipe that has ended when the front begins."""
    from virtd.protocol.messages import make_call

    calls = [("auth_list", ()), ("connect_open", (URI, 0)), ("connect_get_lib_version", ())]
    data = b"".join(make_call(METHODS[name], at, args).to_bytes() for at, (name, args) in enumerate(calls))
    command = [sys.executable, "-m", "virtd.server.main", "--root", str(tmp_path / "inetd"), "--inetd", "--remote"]
    result = subprocess.run(
        [*command, "--remote-uri", uri_of(owner)], input=data, capture_output=True, cwd=TOP, timeout=30, check=False
    )
    framer = Framer()
    framer.receive(result.stdout)
    serials = []
    while (message := framer.next_message()) is not None:
        serials.append((message.serial, message.status))
    assert serials == [(0, 0), (1, 0), (2, 0)], result.stderr


def test_it_holds_no_drivers() -> None:
    code = (
        "import sys; import virtd.server.main, virtd.server.accept, virtd.server.front\n"
        "print([name for name in sys.modules if name.startswith(('virtd.drivers.', 'lxml', 'virtd.conf.'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP, check=True)
    light = (["remote"], ["base"], ["holes"], ["identities"])
    heavy = [name for name in eval(result.stdout) if name.split(".")[2:3] not in light]
    assert heavy == []


# With the real drivers


@pytest.fixture
def before(instances: Callable[[], Instance], virtd: Instance) -> Instance:
    """A front before a virtd."""
    made = instances()
    made.start("--remote", "--remote-uri", virtd.uri)
    return made


def test_a_guest_by_virsh(virtd: Instance, before: Instance, boot_disk: Callable[..., Path]) -> None:
    before.define(xml.boot_domain("web", boot_disk()))
    before.virsh("start", "web")
    talk(before.uri, before, b"by a front")
    assert virtd.virsh("list", "--name") == "web"
    assert before.virsh("uri") == before.uri
    before.virsh("destroy", "web")
    assert any(process.title.startswith("virtd: remote: ") for process in before.processes())
    assert not any("remote" in process.title for process in virtd.processes())


def test_events_by_libvirt(before: Instance, libvirt: ModuleType) -> None:
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(before.uri)
    heard: list[int] = []
    number = connection.domainEventRegisterAny(
        None,
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        lambda _conn, _dom, event, _detail, _data: heard.append(event),
        None,
    )
    connection.defineXML(XML).undefine()
    late: list[int] = []
    timer = libvirt.virEventAddTimeout(20000, lambda _timer, _data: late.append(1), None)
    while len(heard) < 2 and not late:
        libvirt.virEventRunDefaultImpl()
    libvirt.virEventRemoveTimeout(timer)
    assert heard == [libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED]
    connection.domainEventDeregisterAny(number)
    connection.close()


def test_by_ssh(sshd: Sshd, instances: Callable[[], Instance]) -> None:
    """The owner is elsewhere, and no server runs there."""
    made = instances()
    made.start("--remote", "--remote-uri", sshd.uri())
    assert made.virsh("list", "--all") == ""
    made.define(XML)
    assert made.virsh("list", "--all", "--name") == "quiet"
    made.stop()
    assert sshd.instance.run("virsh", "-q", "-c", sshd.uri(), "list", "--all", "--name").stdout.strip() == "quiet"


def test_an_owner_that_is_libvirtd(libvirtd: Libvirtd, instance: Instance) -> None:
    instance.start("--remote", "--remote-uri", libvirtd.uri("test"))
    result = instance.run("virsh", "-q", "-c", f"test+unix:///default?socket={instance.socket}", "list", "--name")
    assert result.stdout.strip() == "test"


def test_the_processes_end(before: Instance) -> None:
    before.stop()
    assert all(wait_ended(process.pid, 10) for process in before.processes())

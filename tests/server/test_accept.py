"""The accept loop and its processes: spares, limits, identities, what kills whom."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_for
from tests.server.harness import URI, Client, children, guest, title
from virtd import constants as c
from virtd.errors import VirtError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")


def test_processes_say_what_they_are(server):
    assert title(server.pid) == f"virtd: accepting {server.sock} (0 clients)"
    wait_for(lambda: list(server.workers().values()) == ["virtd: spare"] * 5)
    with server.client() as one, server.client():
        wait_for(lambda: title(server.pid) == f"virtd: accepting {server.sock} (2 clients)")
        assert title(one.pid()).endswith(f"@unix {URI}: idle")
        wait_for(lambda: 5 <= len(server.spares()) <= 9)
    wait_for(lambda: title(server.pid) == f"virtd: accepting {server.sock} (0 clients)")


def test_a_worker_serves_the_next_client_of_the_same_user(server):
    pids = set()
    for _ in range(40):
        with server.client() as client:
            pids.add(client.pid())
            client.call("connect_close")
            assert client.receive() is None
    assert len(pids) < 12
    wait_for(lambda: 5 <= len(server.spares()) <= 9)


def test_a_worker_with_subscriptions_serves_nobody_else(server):
    with server.client() as client:
        worker = client.pid()
        client.call("connect_domain_event_callback_register_any", 1, guest("0"))
    wait_for(lambda: title(worker) == "")


def test_a_worker_that_left_a_child_serves_nobody_else(server, tmp_path):
    with server.client() as client:
        worker = client.pid()
        client.send("domain_create", guest(f"slowmark {tmp_path}/mark"))
        wait_for(lambda: children(worker))
    wait_for(lambda: title(worker) == "")
    assert (tmp_path / "mark").exists()


def somebody_else(path, uid, calls):
    """Connect as another user, from a directory which that user cannot reach by its path."""
    code = f"""
import os, socket, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.server.harness import Client
os.chdir({os.path.dirname(path)!r})
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
sock = socket.socket(socket.AF_UNIX)
sock.connect({os.path.basename(path)!r})
with Client(sock) as client:
    print(client.call("connect_get_type"), client.call("connect_get_hostname"))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@root_only
def test_a_worker_serves_nobody_of_another_user(server):
    for _ in range(3):
        with server.client(server.ro) as client:
            mine = client.pid()
            assert "uid=0, gid=0" in client.call("connect_get_hostname")
        pid, _, identity = somebody_else(server.ro, 65534, 1).partition(" ")
        assert int(pid) != mine
        assert "uid=65534, gid=65534" in identity
        assert "transport='unix', read_only=True" in identity


@root_only
def test_sockets_belong_to_whom_the_configuration_says(serve):
    server = serve(config='unix_sock_group = "daemon"\nunix_sock_ro_perms = "0755"\n')
    writing, reading = os.stat(server.sock), os.stat(server.ro)
    assert (writing.st_mode & 0o777, reading.st_mode & 0o777) == (0o770, 0o755)
    assert writing.st_gid == reading.st_gid != 0


def test_max_clients(serve):
    server = serve(config="max_clients = 3\n")
    clients = [server.client() for _ in range(3)]
    for _ in range(2):
        with (
            pytest.raises(VirtError, match=r"too many clients: max_clients = 3 in virtd.conf is reached") as info,
            server.client() as client,
        ):
            client.ping()
        assert info.value.code == c.VIR_ERR_RESOURCE_BUSY
    assert all(client.ping() < 5 for client in clients)
    clients.pop().close()
    wait_for(lambda: len(server.serving()) == 2)
    clients.append(server.client())
    for client in clients:
        client.close()


def test_max_clients_is_kept_when_all_come_at_once(serve):
    server = serve(config="max_clients = 10\nmin_workers = 20\n")
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for sock in sockets:
        sock.connect(server.sock)
    served = refused = 0
    for sock in sockets:
        client = Client(sock, opened=False)
        try:
            client.call("connect_open", URI, 0)
            served += 1
        except VirtError as error:
            refused += "max_clients = 10" in error.message
        except (EOFError, ConnectionError):
            refused += 1
    assert served == 10
    assert refused == 30
    for sock in sockets:
        sock.close()


def tcp_address(server):
    words = wait_for(lambda: [w for w in server.log.read_text().split() if w.startswith("127.0.0.1:")])
    host, port = words[0].rstrip(",").rsplit(":", 1)
    return host, int(port)


def test_max_anonymous_clients(serve):
    server = serve("--listen-tcp", "127.0.0.1:0", config="max_anonymous_clients = 2\n")
    address = tcp_address(server)
    silent = [Client(address, opened=False) for _ in range(2)]
    wait_for(lambda: len(server.serving()) == 2)
    with pytest.raises(VirtError, match="max_anonymous_clients = 2"), Client(address) as client:
        client.ping()
    # Local clients are known, and not counted; one who has spoken is no longer.
    with server.client() as local:
        local.ping()
    silent[0].call("connect_open", URI, 0)
    with wait_for(lambda: try_client(address)) as client:
        assert "uid=-1" in client.call("connect_get_hostname")
        assert title(client.pid()) == f"virtd: worker for 127.0.0.1@tcp {URI}: idle"
    for client in silent:
        client.close()


def test_whoever_says_nothing_has_to_go(serve):
    server = serve("--listen-tcp", "127.0.0.1:0", environment={"FAKE_ANONYMOUS": "0.5"})
    silent, polite = Client(tcp_address(server), opened=False), Client(tcp_address(server))
    local = server.client(opened=False)
    assert silent.receive() is None
    assert polite.ping() < 5
    assert local.ping() < 5
    assert "it has said nothing" in server.log.read_text()
    for client in (silent, polite, local):
        client.close()


def try_client(address):
    try:
        return Client(address)
    except VirtError:
        return None


def test_a_killed_worker_hurts_nobody_else(server):
    with server.client() as one, server.client() as two:
        os.kill(one.pid(), signal.SIGKILL)
        assert one.receive() is None
        assert two.ping() < 5
        with server.client() as three:
            three.ping()
    wait_for(lambda: "was killed by signal 9" in server.log.read_text())
    wait_for(lambda: "(0 clients)" in title(server.pid))


def test_killed_spares_are_replaced(server):
    spares = server.spares()
    time.sleep(1.1)  # longer than a process lives that is broken from the start
    for pid in spares:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(server.spares()) == 5 and not set(server.spares()) & set(spares))
    with server.client() as client:
        client.ping()


def test_spares_that_die_at_once_are_replaced_with_patience(server):
    for pid in server.spares():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(server.spares()) == 5)
    assert "trying again" not in server.log.read_text()
    with server.client() as client:
        client.ping()


def test_fork_fails(serve, tmp_path):
    """The accept loop goes on with what it has, and tries again; a call that needs a process says so."""
    stop = tmp_path / "no-fork"
    server = serve(environment={"FAKE_NO_FORK": str(stop)})
    with server.client() as before:
        before.call("domain_create", guest("quick"))
        wait_for(lambda: len(server.spares()) >= 5)
        stop.touch()
        with pytest.raises(VirtError) as info:
            before.call("domain_create", guest("quick"))
        assert info.value.message == f"cannot fork child process: {os.strerror(errno.EAGAIN)}"
        clients = [server.client() for _ in server.spares()]
        wait_for(lambda: "trying again in 0.2 s" in server.log.read_text())
        late = socket.socket(socket.AF_UNIX)
        late.connect(server.sock)
        stop.unlink()
        with Client(late) as client:
            client.ping()
        before.call("domain_create", guest("quick"))
        wait_for(lambda: len(server.spares()) >= 5)
        for client in clients:
            client.close()


def switches(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    return 0


def test_nothing_wakes_up_while_nothing_happens(server):
    with server.client() as client:
        pids = [server.pid, client.pid(), *server.spares()]
        wait_for(lambda: "(1 client)" in title(server.pid))

        def at_rest():
            before = [switches(pid) for pid in pids]
            time.sleep(0.7)
            return [switches(pid) for pid in pids] == before

        wait_for(at_rest)


def test_sigterm_lets_calls_end(server):
    client = server.client()
    idle = server.client()
    call = client.send("domain_create", guest("sleep 0.5"))
    late = client.send("domain_create", guest("error too late"))
    worker = client.pid()
    wait_for(lambda: len(children(worker)) >= 1)
    server.signal(signal.SIGTERM)
    assert idle.receive() is None
    wait_for(lambda: title(server.pid).startswith("virtd: stopping ("))
    assert not os.path.exists(server.sock)
    with pytest.raises(VirtError, match="too late"):
        client.reply(late)
    assert client.reply(call) is None
    assert client.receive() is None
    assert server.wait() == 0
    assert not os.path.exists(server.root / "run/virtd/virtd.pid")
    assert not os.path.exists(server.root / "run/virtd/control")


def test_a_second_sigterm_ends_it_now(server):
    client = server.client()
    client.send("domain_create", guest("hang"))
    worker = client.pid()
    (call,) = wait_for(lambda: children(worker))
    server.signal(signal.SIGTERM)
    wait_for(lambda: title(worker).endswith("stopping"))
    server.signal(signal.SIGTERM)
    start = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - start < 3
    assert client.receive() is None
    wait_for(lambda: not title(call))


def test_the_accept_loop_is_killed(serve):
    """Clients stay, waiting processes end, and a new virtd finds everything free."""
    server = serve()
    client = server.client()
    worker = client.pid()
    spares = server.spares()
    server.process.kill()
    server.wait()
    wait_for(lambda: not any(title(pid) for pid in spares))
    assert client.ping() < 5
    client.call("domain_create", guest("quick"))
    assert client.pid() == worker
    wait_for(lambda: nobody_listens(server))
    second = serve(root=server.root)
    with second.client() as other:
        other.ping()
    assert client.ping() < 5
    client.close()
    wait_for(lambda: title(worker) == "")


def nobody_listens(server):
    """Whether connections are refused; one that came while the last process let go of the socket is reset."""
    try:
        server.client().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_sighup(serve):
    server = serve(config="max_clients = 50\n")
    clients = [server.client()]
    server.config.write_text("max_clients = nonsense\n")
    server.signal(signal.SIGHUP)
    wait_for(lambda: "the configuration stays as it was" in server.log.read_text())
    assert "virtd.conf:1: expecting a value" in server.log.read_text()
    clients.append(server.client())
    server.config.write_text("max_clients = 2\n")
    server.signal(signal.SIGHUP)
    wait_for(lambda: "the configuration was read again" in server.log.read_text())
    with pytest.raises(VirtError, match="max_clients = 2"):
        server.client()
    assert all(client.ping() < 5 for client in clients)
    for client in clients:
        client.close()


def test_timeout(serve):
    server = serve("--timeout", "1")
    with server.client() as client:
        time.sleep(1.2)
        assert client.ping() < 5
        with server.client():
            pass
    start = time.monotonic()
    assert server.wait() == 0
    assert 0.9 < time.monotonic() - start < 5
    assert not os.path.exists(server.sock)
    assert "no client for 1 s" in server.log.read_text()


def test_the_lock_says_who_holds_it(server):
    note = json.loads((server.root / "run/virtd/virtd.lock").read_text())
    assert note["pid"] == server.pid
    assert note["call"].startswith(f"virtd, serving {server.sock}")
    assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - note["since"] < 60


def test_a_client_that_connects_and_leaves_at_once(server):
    for _ in range(50):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(server.sock)
        sock.close()
    with server.client() as client:
        client.ping()
    wait_for(lambda: "(0 clients)" in title(server.pid))
    assert "bug" not in server.log.read_text()

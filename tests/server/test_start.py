"""Starting: the command line, what can be wrong with it, daemons, inetd, systemd, sockets."""

import os
import socket
import subprocess
import sys

import pytest

from tests.helpers.waiting import ends, wait_for
from tests.server.harness import HERE, TOP, URI, Client, guest, private, title
from virtd.protocol.framing import Framer
from virtd.protocol.messages import make_call
from virtd.protocol.programs import METHODS
from virtd.server.main import Status


def virtd(*arguments, script="fake.py", **options):
    """Run virtd to its end."""
    return subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(TOP), **options.pop("environment", {})},
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--bogus"], Status.USAGE, "No such option '--bogus'"),
        (["extra"], Status.USAGE, "Got unexpected extra argument"),
        (["--timeout", "soon"], Status.USAGE, "'soon' is not a valid integer"),
        (["--timeout", "0"], Status.USAGE, "0 is not in the range"),
        (["--config", "/nonexistent"], Status.CONFIG, "Failed to open file '/nonexistent': No such file or directory"),
        (["--listen-tcp", "nowhere"], Status.LISTEN, "'nowhere' is not of the form ADDR:PORT"),
        (["--listen-tcp", "0.0.0.0:0"], Status.LISTEN, 'set auth_tcp = "none"'),
        (["--listen-tcp", "192.0.2.1:0"], Status.LISTEN, "192.0.2.1:0"),
        (["--listen-tls", "127.0.0.1:0"], Status.UNSUPPORTED, "--listen-tls is not supported yet"),
        (["--inetd", "--daemon"], Status.USAGE, "--inetd serves one client only"),
        (["--root", "/proc/nowhere"], Status.LISTEN, "cannot create directory '/proc/nowhere"),
    ],
)
@pytest.mark.parametrize("daemon", [[], ["--daemon"]])
def test_what_is_wrong_is_said_in_one_line(tmp_path, arguments, status, text, daemon):
    if daemon and "/proc/nowhere" in arguments:
        status, text = Status.CONFIG, "/proc/nowhere"
    root = [] if "--root" in arguments else ["--root", str(tmp_path)]
    result = virtd(*root, *daemon, *arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("virtd: ")]
    assert result.returncode == status, result.stderr
    assert len(lines) == 1, result.stderr
    assert text in lines[0]
    assert result.stdout == ""


def test_help_and_version():
    assert virtd("--version").stdout == "virtd 0.1.0 (libvirt 9.0.0)\n"
    result = virtd("--help")
    for option in ("--root", "--config", "--daemon", "--pid-file", "--timeout", "--listen-tcp", "--inetd", "--replace"):
        assert option in result.stdout


def test_a_wrong_file_names_its_line(tmp_path):
    (tmp_path / "conf").write_text("# a comment\nmax_clients = 5\nmax_cleints = 6\n")
    result = virtd("--root", str(tmp_path), "--config", "conf", cwd=tmp_path)
    assert result.returncode == Status.CONFIG
    assert result.stderr == f"virtd: unsupported configuration: {tmp_path}/conf:3: unknown setting 'max_cleints'\n"


def test_a_second_virtd_is_told_who_holds_the_root(server):
    result = virtd("--root", str(server.root))
    assert result.returncode == Status.RUNNING
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("virtd: ")]
    assert f"held by pid {server.pid} in virtd, serving {server.sock}" in line
    with server.client() as client:
        client.ping()


def test_two_roots_side_by_side(serve, tmp_path):
    one, two = serve(root=tmp_path / "one"), serve(root=tmp_path / "two")
    with one.client() as first, two.client() as second:
        assert first.pid() != second.pid()


def test_the_environment_stands_for_the_option(tmp_path):
    result = virtd("--daemon", environment={"VIRTD_ROOT": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    with Client(f"{tmp_path}/run/libvirt/libvirt-sock") as client:
        client.ping()
    end(tmp_path / "run/virtd/virtd.pid")


def end(pid_file):
    """End a daemon, and wait for it."""
    pid = int(pid_file.read_text())
    os.kill(pid, 15)
    ends(pid)


def test_daemon(tmp_path):
    """It returns when the sockets accept, and nobody who waits for its output waits for the daemon."""
    result = virtd("--root", str(tmp_path), "--daemon", "--pid-file", "a.pid", "-v", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    with Client(f"{tmp_path}/run/libvirt/libvirt-sock") as client:
        client.ping()
        pid = int((tmp_path / "a.pid").read_text())
        assert title(pid).startswith("virtd: accepting")
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
    end(tmp_path / "a.pid")
    assert "virtd serves" in (tmp_path / "var/log/virtd/virtd.log").read_text()
    assert not (tmp_path / "a.pid").exists()


def test_nothing_of_a_daemon_is_inherited_by_its_workers(server):
    """A worker has what it needs open, and nothing of the accept loop."""
    with server.client() as client:
        worker = client.pid()
        open_files = {os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")}
        assert not any("virtd.lock" in name for name in open_files)
        assert len(os.listdir(f"/proc/{worker}/fd")) < 20


@pytest.mark.parametrize("length", [60, 150])
def test_long_roots(serve, tmp_path, length):
    root = tmp_path / ("r" * length)
    serve(root=root)
    directory = os.open(root / "run/libvirt", os.O_RDONLY)
    with Client(f"/proc/self/fd/{directory}/libvirt-sock") as client:
        client.ping()
    os.close(directory)


def test_stale_socket_files_are_replaced(serve, tmp_path):
    (tmp_path / "root/run/libvirt").mkdir(parents=True)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "root/run/libvirt/libvirt-sock"))
    stale.close()
    with serve().client() as client:
        client.ping()


def test_modular_sockets(serve):
    server = serve(config="modular_sockets = 1\n")
    directory = server.root / "run/libvirt"
    for name in ("virtqemud-sock", "virtnetworkd-sock", "virtproxyd-sock"):
        with server.client(str(directory / name)) as client:
            client.ping()
    if os.geteuid() == 0:
        with server.client(str(directory / "virtqemud-sock-ro")) as client:
            assert "read_only=True" in client.call("connect_get_hostname")


def test_tcp_from_the_configuration_file(serve):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = f'listen_tcp = 1\ntcp_port = "{port}"\nlisten_addr = "127.0.0.1"\n'
    server = serve("--listen", config=config)
    with server.client(("127.0.0.1", port)) as client:
        client.ping()
    assert "has no authentication" in server.log.read_text()


def test_ipv6(serve):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    server = serve("--listen-tcp", "[::1]:0")
    word = wait_for(lambda: [w for w in server.log.read_text().split() if w.startswith("[::1]:")])[0]
    with socket.socket(socket.AF_INET6) as sock:
        sock.connect(("::1", int(word.rstrip(",").rsplit(":", 1)[1])))
        with Client(sock) as client:
            client.ping()


# Started by others


def inetd(root, stdin, stdout, stderr=None):
    command = [sys.executable, str(HERE / "fake.py"), "--root", str(root), "--inetd"]
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment)


def test_inetd_with_a_socket(tmp_path):
    ours, theirs = socket.socketpair()
    process = inetd(tmp_path, theirs, theirs, theirs)
    theirs.close()
    with Client(ours) as client:
        worker = client.pid()
        assert worker == process.pid
        assert title(worker).endswith(f"@stdio {URI}: idle")
        assert "transport='stdio'" in client.call("connect_get_hostname")
        client.call("domain_open_graphics_fd", guest("a"), 0, 0)
        assert os.read(client.fds[0], 100) == b"from the guest"
        assert private(worker) > 0
    assert process.wait(20) == 0


def test_inetd_with_pipes(tmp_path):
    """As sshd does it: two pipes, and standard error for people."""
    to_server, from_client = os.pipe()
    to_client, from_server = os.pipe()
    process = inetd(tmp_path, to_server, from_server)
    os.close(to_server)
    os.close(from_server)
    framer = Framer()
    framer.unlimit()

    def call(serial, method, *args):
        os.write(from_client, make_call(METHODS[method], serial, args).to_bytes())
        while (message := framer.next_message()) is None:
            framer.receive(os.read(to_client, 65536))
        assert (message.serial, message.status) == (serial, 0)
        return message

    call(1, "connect_open", URI, 0)
    assert len(call(2, "domain_get_xml_desc", guest("3000000"), 0).payload) > 3_000_000
    call(3, "domain_create", guest("quick"))
    os.close(from_client)
    assert process.wait(20) == 0
    os.close(to_client)


def test_inetd_is_told_to_end(tmp_path):
    ours, theirs = socket.socketpair()
    process = inetd(tmp_path, theirs, theirs)
    theirs.close()
    with Client(ours) as client:
        client.ping()
        process.terminate()
        assert client.receive() is None
    assert process.wait(20) == 0


def test_sockets_from_systemd(tmp_path):
    """As sd_listen_fds(3) says; which of them is read-only, its name or its path tells."""
    (tmp_path / "s").mkdir()
    sockets = []
    for name in ("any-sock", "any-sock-ro", "other"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s" / name))
        sock.listen(5)
        sockets.append(sock)
    launcher = f"""
import os, sys
for number, fd in enumerate({[sock.fileno() for sock in sockets]!r}):
    os.dup2(fd, 100 + number)
for number in range(3):
    os.dup2(100 + number, 3 + number)
os.environ.update(LISTEN_FDS="3", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="libvirtd.socket::libvirtd-ro.socket")
os.execv(sys.executable, [sys.executable, {str(HERE / "fake.py")!r}, "--root", {str(tmp_path / "root")!r}, "-v"])
"""
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-c", launcher],
        pass_fds=[sock.fileno() for sock in sockets],
        stderr=log,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    for name, read_only in (("any-sock", False), ("any-sock-ro", True), ("other", True)):
        with Client(str(tmp_path / "s" / name)) as client:
            assert f"read_only={read_only}" in client.call("connect_get_hostname")
    assert not (tmp_path / "root/run/libvirt").exists()
    process.terminate()
    assert process.wait(20) == 0
    # They are systemd's, not ours.
    assert (tmp_path / "s/any-sock").exists()


# Each of these costs every worker memory, or every start time.
HEAVY = {"threading", "logging", "asyncio", "tempfile", "pyroute2", "random", "importlib.metadata"}


def modules_of(program: str) -> set[str]:
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_server_loads_no_threads(server):
    with server.client() as client:
        modules = set(client.call("connect_get_sysinfo", 0).split())
    # What the machine's own start-up files import is not ours.
    assert not (modules - modules_of("import sys; print(*sys.modules)")) & HEAVY


def test_importing_the_drivers_loads_no_threads():
    bare = modules_of("import sys; print(*sys.modules)")
    program = """if True:
        import sys, virtd.server.rehearsal, virtd.drivers as drivers
        for scheme in drivers.LOCAL_SCHEMES:
            drivers.local_drivers(scheme)
        print(*sys.modules)"""
    assert not (modules_of(program) - bare) & HEAVY

"""Network namespaces for the tests, an instance of the driver in each, and hosts that are plugged into its networks."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.helpers.waiting import SECONDS
from virtd.drivers.base import Context, Identity
from virtd.drivers.network.driver import NetworkDriver
from virtd.state import paths

_CLONE_NEWNET = 0x40000000


def run(*command: str, check: bool = True) -> str:
    """Run a program of the test's own; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network namespace for the test and everything that it starts."""
    if os.geteuid():
        pytest.skip("only root can make network namespaces")
    for program in ("ip", "dnsmasq", "nft"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            lacking(f"program {program}")
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(_CLONE_NEWNET):
        os.close(outside)
        lacking(f"right to make network namespaces ({os.strerror(ctypes.get_errno())})")
    try:
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        assert libc.setns(outside, _CLONE_NEWNET) == 0
        os.close(outside)


class Service:
    """A driver below a directory of its own."""

    def __init__(self) -> None:
        self.root = tempfile.mkdtemp(prefix="v-", dir="/tmp")
        os.chmod(self.root, 0o755)  # dnsmasq's user passes through it
        self.driver = self.open()

    def open(self, *, privileged: bool = True) -> NetworkDriver:
        """Another connection to the same instance."""
        pid = os.getpid()
        where = paths.below(self.root, privileged=privileged)
        return NetworkDriver(Context(where, Identity(os.geteuid(), os.getegid(), pid), pid))

    def processes(self) -> dict[int, str]:
        """What runs for this instance, supervisors by their open files: pid → command line."""
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                opened = [os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")]
            except OSError:
                continue
            if self.root in words or any(name.startswith(self.root) for name in opened):
                found[int(entry)] = words
        return found

    def dnsmasq(self) -> list[int]:
        """The dnsmasqs that run for this instance."""
        return [pid for pid, words in self.processes().items() if "dnsmasq" in words]

    def supervisors(self) -> list[int]:
        """The supervisors that run for this instance."""
        return [pid for pid, words in self.processes().items() if words.startswith("virtd: network ")]

    def finish(self) -> None:
        """End what the test left, and remove the directory."""
        left = self.processes()
        for pid in [*self.supervisors(), *left]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.driver.close()
        shutil.rmtree(self.root, ignore_errors=True)
        assert not left, left


@pytest.fixture
def service(namespace: None) -> Iterator[Service]:
    """An instance in a network namespace; at the end no process of its may be left."""
    made = Service()
    yield made
    made.finish()


class Host:
    """A machine with a network of its own: a namespace, and one cable into the test's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.pid = self._process.pid
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        run("ip", "link", "set", name, "up")
        self.run("ip", "link", "set", "eth0", "up")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program on the machine."""
        return run("nsenter", "-t", str(self.pid), "-n", *command, check=check)

    @property
    def mac(self) -> str:
        words = self.run("ip", "-o", "link", "show", "eth0").split()
        return words[words.index("link/ether") + 1]

    def lease(self, *options: str) -> None:
        """Ask for an address by DHCP, and take it."""
        with tempfile.NamedTemporaryFile("w", suffix=".sh", prefix="v-", delete=False) as script:
            script.write('#!/bin/sh\n[ "$1" != bound ] && exit\nip addr add $ip/$mask dev eth0\n')
            script.write('[ -z "$router" ] || ip route add default via $router\n')
        os.chmod(script.name, 0o755)
        try:
            command = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", script.name]
            self.run(*command, *options)
        finally:
            os.unlink(script.name)

    @property
    def addresses(self) -> list[str]:
        words = self.run("ip", "-o", "-4", "addr", "show", "eth0").split()
        return [words[n + 1] for n, word in enumerate(words) if word == "inet"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def host(namespace: None) -> Iterator[Callable[..., Host]]:
    """host(name, bridge=None) -> a machine whose cable's near end has this name and is a port of the bridge."""
    if shutil.which("busybox") is None:
        lacking("program busybox")
    made: list[Host] = []

    def make(name: str, bridge: str | None = None) -> Host:
        made.append(Host(name))
        if bridge is not None:
            run("ip", "link", "set", name, "master", bridge)
        return made[-1]

    yield make
    for one in made:
        one.close()

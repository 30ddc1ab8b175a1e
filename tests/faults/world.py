"""An instance of virtd to put faults into: what it shows, what it leaves, and how it is emptied again.

Beside what operations make and unmake there are a guest that runs and one that is defined, to which nothing may
ever happen. The server knows the fault points' directory.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults import operations
from tests.faults.operations import Call
from tests.guests import bootsector
from tests.guests.xml import boot_domain
from tests.helpers.instance import Instance, make_root
from tests.helpers.processes import Process
from tests.helpers.waiting import SECONDS, wait_ended, wait_for
from tests.server.harness import Client
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.messages import Message
from virtd.protocol.records import Domain, StorageVol
from virtd.state import faults

Shown = dict[str, str]

# What grows with use, and what is kept for the next time.
_KEPT = re.compile(
    r"var/log/|run/virtd/journal/|var/cache/|faults/|run/virtd/[a-z.-]+\.(id|lock)$|\.autostarted$|secrets\.key$"
    r"|run/virtd/(qemu|networks)\.undo(/lock)?$"
    r"|^var/lib(/virtd(/[a-z]+)?)?$|run/virtd/storage/([0-9a-f-]+\.lock|unread)$"
)
_SWEEP = [
    operations.DEFINE,
    operations.UNDEFINE,
    operations.DEFINE_NETWORK,
    operations.UNDEFINE_NETWORK,
    operations.DEFINE_POOL,
    operations.UNDEFINE_POOL,
    operations.DEFINE_SECRET,
    operations.UNDEFINE_SECRET,
]
_CLONE_NEWNET = 0x40000000


class BrokenError(AssertionError):
    """Something is not as it has to be after a fault."""


class World:
    """A running instance with a bystander; root is wanted for guests under a user of their own and networks.

    Args:
        armed: whether its processes pass fault points.
        patience: how many seconds a call waits for what usually takes far less; None: as long as in earnest.
    """

    def __init__(self, *, armed: bool = True, patience: float | None = None) -> None:
        self._outside = -1
        if not os.geteuid():
            self._outside = os.open("/proc/self/ns/net", os.O_RDONLY)
            _libc("unshare", _CLONE_NEWNET)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.root = make_root()
        self.faults = self.root / "faults"
        self.faults.mkdir()
        self.faults.chmod(0o777)
        self.instance = Instance(self.root)
        self.uri = f"qemu:///{self.instance.mode}"
        images = self.root / "images"
        images.mkdir()
        images.chmod(0o777)
        for name in ("a", "b"):
            bootsector.write_boot_disk(images / f"{name}.img", then="serve")
        (self.root / "pool").mkdir()
        variables = {faults.VARIABLE: str(self.faults)} if armed else {}
        if patience is not None:
            variables["VIRTD_PATIENCE"] = str(patience)
        os.environ.update(variables)
        try:
            self.instance.start()
        finally:
            for name in variables:
                del os.environ[name]
        self._bystander = self._start_bystander(images)
        self._tracebacks = 0
        self.empty()
        with self.client() as client:
            client.call("connect_get_all_domain_stats", [], 0, 0)  # what it has answered is kept
        self.check_log()
        self.baseline = self.left()

    def close(self) -> None:
        """End everything."""
        try:
            left = self.instance.finish()
        finally:
            if self._outside >= 0:
                _libc("setns", self._outside, _CLONE_NEWNET)
                os.close(self._outside)
        if left:
            raise BrokenError(f"processes are left: {left}")

    @contextmanager
    def client(self, *, warm: bool = False) -> Iterator[Client]:
        """A connection; a server that does not serve it is an error.

        Args:
            warm: all that its worker does only once has been done.
        """
        with Client(str(self.instance.socket), timeout=SECONDS, uri=self.uri) as client:
            if warm:
                for what in ("domains", "networks", "storage_pools", "secrets"):
                    client.call(f"connect_list_all_{what}", 1, 0)
            yield client

    def _start_bystander(self, images: Path) -> tuple[Domain, int]:
        disk = bootsector.write_boot_disk(images / "bystander.img", then="serve")
        xml = boot_domain("bystander", disk, uuid="50000000-0000-0000-0000-000000000001")
        with self.client() as client:
            client.call("domain_define_xml_flags", xml.replace("bystander", "idle").replace("5000", "6000"), 0)
            domain = client.call("domain_create_xml", xml, 0)
        return domain, self.qemu("bystander")

    # Acting

    def do(self, client: Client, call: Call) -> Any:
        """Carry out a call of an operation.

        Raises:
            VirtError: what it failed with.
        """
        waiting = self.send(client, call)
        if waiting is not None:
            return client.reply(waiting)
        self.settle(client)
        return None

    def send(self, client: Client, call: Call) -> Message | None:
        """Begin a call; what its reply will be to, if virtd gives one."""
        name, *arguments = (self._here(argument) for argument in call)
        if name != operations.KILL:
            return client.send(name, *arguments)
        pid = self.qemu("web1")
        os.kill(pid, signal.SIGTERM)
        if not wait_ended(pid, SECONDS):
            raise BrokenError(f"QEMU {pid} does not end")
        return None

    def _here(self, argument: Any) -> Any:
        """An argument of a call, with ROOT replaced."""
        if isinstance(argument, str):
            return argument.replace("ROOT", str(self.root))
        if isinstance(argument, StorageVol):
            return argument._replace(key=self._here(argument.key))
        return argument

    def settle(self, client: Client | None = None) -> None:
        """Wait for those who clean up after a guest or network that has ended, and for calls whose worker has died."""
        if client is None:
            with self.client() as client:
                self.settle(client)
            return
        wait_for(lambda: not self._calls(), "the end of all calls")
        domains = client.call("connect_list_all_domains", 1, c.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[0]
        networks = client.call("connect_list_all_networks", 1, c.VIR_CONNECT_LIST_NETWORKS_ACTIVE)[0]
        active = {("guest", domain.name) for domain in domains} | {("network", network.name) for network in networks}
        for process in self.instance.processes():
            found = re.match(r"virtd: (guest|network) (\S+)", process.title)
            qemu = re.match(r".* -name guest=([^,]+)", process.title)
            of = found.groups() if found else ("guest", qemu[1]) if qemu else None
            if of is not None and of not in active and not wait_ended(process.pid, SECONDS):
                raise BrokenError(f"{process} is left of a {of[0]} that is off")

    def _calls(self) -> list[Process]:
        """The processes of calls; and supervisors that have just been forked, until they have a title of their own."""
        processes = self.instance.processes()
        servers = {process.pid for process in processes if process.title.startswith("virtd: accepting")}
        return [p for p in processes if p.title.startswith("virtd: worker for") and p.ppid not in servers]

    def empty(self) -> None:
        """Unmake by ordinary calls whatever operations have made."""
        with self.client() as client:
            for domain in client.call("connect_list_all_domains", 1, 0)[0]:
                if domain.name in ("bystander", "idle"):
                    continue
                if domain.id >= 0:
                    client.call("domain_destroy_flags", domain, 0)
                try:
                    client.call("domain_undefine_flags", domain, 0)
                except VirtError as error:
                    if error.code != c.VIR_ERR_NO_DOMAIN:
                        raise
            for network in client.call("connect_list_all_networks", 1, 0)[0]:
                if client.call("network_is_active", network):
                    client.call("network_destroy", network)
                if self._there(client, "connect_list_all_networks"):
                    client.call("network_undefine", network)
            for pool in client.call("connect_list_all_storage_pools", 1, 0)[0]:
                if not client.call("storage_pool_is_active", pool):
                    client.call("storage_pool_create", pool, 0)
                for volume in client.call("storage_pool_list_all_volumes", pool, 1, 0)[0]:
                    client.call("storage_vol_delete", volume, 0)
                client.call("storage_pool_destroy", pool)
                if self._there(client, "connect_list_all_storage_pools"):
                    client.call("storage_pool_undefine", pool)
            for secret in client.call("connect_list_all_secrets", 1, 0)[0]:
                client.call("secret_undefine", secret)
            # Whoever changes a definition next clears away what a dead one left.
            if any(path.name.endswith(".new") or not path.exists() for path in (self.root / "etc").rglob("*")):
                for call in _SWEEP:
                    self.do(client, call)
        self.settle()

    @staticmethod
    def _there(client: Client, method: str) -> bool:
        return bool(client.call(method, 1, 0)[0])

    # Looking

    def shown(self) -> Shown:
        """What a client sees of everything that operations make."""
        found: dict[str, Any] = {}
        with self.client() as client:
            for domain in client.call("connect_list_all_domains", 1, 0)[0]:
                if domain.name not in ("bystander", "idle"):
                    found[f"domain {domain.name}"] = self._shown_domain(client, domain)
            for network in client.call("connect_list_all_networks", 1, 0)[0]:
                found[f"network {network.name}"] = [
                    client.call(f"network_{what}", network) for what in ("is_active", "is_persistent", "get_autostart")
                ] + [client.call("network_get_xml_desc", network, 0)]
            for pool in client.call("connect_list_all_storage_pools", 1, 0)[0]:
                active = client.call("storage_pool_is_active", pool)
                volumes = client.call("storage_pool_list_all_volumes", pool, 1, 0)[0] if active else []
                found[f"pool {pool.name}"] = [
                    active,
                    client.call("storage_pool_get_autostart", pool),
                    sorted((volume.name, client.call("storage_vol_get_info", volume)[1]) for volume in volumes),
                ]
            for secret in client.call("connect_list_all_secrets", 1, 0)[0]:
                try:
                    value = client.call("secret_get_value", secret, 0)
                except VirtError as error:
                    value = error.code
                found["secret"] = [client.call("secret_get_xml_desc", secret, 0), value]
        return {key: repr(value).replace(str(self.root), "ROOT") for key, value in found.items()}

    @staticmethod
    def _shown_domain(client: Client, domain: Domain) -> list[Any]:
        state, reason = client.call("domain_get_state", domain, 0)
        live = client.call("domain_get_xml_desc", domain, 0)
        persistent = client.call("domain_is_persistent", domain)
        return [
            (state, reason if state in (c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_PAUSED) else 0),
            client.call("domain_get_autostart", domain) if persistent else 0,
            re.findall(r"<target dev='(?:[hv]d.)|<title>.*</title>", live),
            client.call("domain_get_xml_desc", domain, c.VIR_DOMAIN_XML_INACTIVE) if persistent else "",
        ]

    def qemu(self, name: str) -> int:
        """The pid of a guest's QEMU."""
        found = [process.pid for process in self.instance.processes() if f"-name guest={name}," in process.title]
        if not found:
            raise BrokenError(f"guest '{name}' has no QEMU")
        return found[0]

    def left(self) -> dict[str, Any]:
        """What must be the same whenever nothing is there but the bystanders."""
        files = [
            path.relative_to(self.root).as_posix()
            + (f" owned by {path.stat().st_uid}" if path.suffix == ".img" else "")
            for path in self.root.rglob("*")
        ]
        processes = [
            p for p in self.instance.processes() if not re.match(r"\[?virtd: (accepting|spare|worker)", p.title)
        ]
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
        return {
            "files": sorted(name for name in files if not _KEPT.search(name)),
            # A supervisor that was killed has a successor.
            "processes": sorted((p.title, p.pid if "qemu" in p.title else 0) for p in processes),
            "links": sorted(name for _, name in socket.if_nameindex()),
            "rules": rules,
            "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.root) in line],
        }

    def check_bystanders(self) -> None:
        """Nothing has happened to those who had nothing to do with it."""
        domain, pid = self._bystander
        with self.client() as client:
            if client.call("domain_get_state", domain, 0)[0] != c.VIR_DOMAIN_RUNNING or self.qemu("bystander") != pid:
                raise BrokenError("the bystander is not as it was")
            if client.call("domain_lookup_by_name", "bystander") != domain:
                raise BrokenError("the bystander has another id")
            client.call("domain_lookup_by_name", "idle")

    def check_locks(self) -> None:
        """Nobody holds a lock but the server and the bystander's supervisor."""
        for path in [*self.root.glob("run/virtd/**/*lock"), *self.root.glob("run/virtd/**/supervisor")]:
            if path.name == "virtd.lock" or "50000000" in str(path):
                continue
            with path.open("r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BrokenError(f"{path} is held by {path.read_text().strip()}") from None

    def check_log(self) -> None:
        """No process met anything that it did not expect."""
        text = "".join(path.read_text(errors="replace") for path in sorted((self.root / "var/log").rglob("*.log")))
        before, self._tracebacks = self._tracebacks, text.count("Traceback")
        if self._tracebacks > before:
            raise BrokenError(text[text.rindex("Traceback") :][:3000])

    def check_emptied(self) -> None:
        """After everything has been unmade, nothing is left of it."""
        now = self.left()
        for what, before in self.baseline.items():
            if now[what] != before:
                if isinstance(before, list):
                    changes = [f"+ {one}" for one in now[what] if one not in before] + [
                        f"- {one}" for one in before if one not in now[what]
                    ]
                else:
                    changes = [before, "is now", now[what]]
                raise BrokenError(f"{what}: {changes}")


def _libc(name: str, *arguments: int) -> None:
    """A system call that Python does not have."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

"""A network's dnsmasq: what its files say, derived from the XML, and how it is started.

The files are dnsmasq's own formats (dnsmasq(8)); their content is libvirt's, line by line, but for where they lie.
dnsmasq is started so that it goes into the background by itself: it does that when its sockets are open, or fails with
a message and a status. Whoever starts it is a "subreaper" (prctl(2)), so that it stays its child.
"""

import os
import shutil
import signal
import subprocess
from typing import NamedTuple

from virtd import constants as c
from virtd.conf.network import Network
from virtd.conf.network import ip as addresses
from virtd.conf.network.ip import Host, Ip, Lease, Range
from virtd.drivers.network import listeners
from virtd.errors import VirtError
from virtd.state import files
from virtd.state.process import Process

_HEADER = """\
# Made by virtd from the definition of the network; changes are lost at its next start.
# Change the network instead:  virsh net-edit {name}
"""
_UNITS = {"seconds": "s", "minutes": "m", "hours": "h"}
# How long dnsmasq may take to open its sockets.
START_SECONDS = 20.0


class Files(NamedTuple):
    """Where the files of one network's dnsmasq lie."""

    directory: str  # the network's run-time directory
    leases: str  # outlives the network: guests keep their addresses
    log: str

    @property
    def configuration(self) -> str:
        return f"{self.directory}/dnsmasq.conf"

    @property
    def hosts(self) -> str:
        return f"{self.directory}/hostsfile"

    @property
    def names(self) -> str:
        return f"{self.directory}/addnhosts"

    @property
    def pid(self) -> str:
        return f"{self.directory}/dnsmasq.pid"

    @property
    def all(self) -> tuple[str, ...]:
        """What goes with the network."""
        return self.configuration, self.hosts, self.names, self.pid


def needed(network: Network) -> bool:
    """Whether a network has anything for dnsmasq to do."""
    if not network.own_bridge or not network.ips:
        return False
    served = any(network.dhcp_of(version) for version in (4, 6)) or any(ip.tftp_root for ip in network.ips)
    return _dns(network) or served or bool(network.ips_of(6))


def write(network: Network, where: Files) -> None:
    """Write all files of a network's dnsmasq.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, what the XML asks for cannot be said to dnsmasq.
    """
    files.replace(where.configuration, configuration(network, where).encode(), durable=False, mode=0o644)
    write_hosts(network, where)


def write_hosts(network: Network, where: Files) -> None:
    """Write the files that dnsmasq reads again when it is told to (SIGHUP)."""
    files.replace(where.hosts, hosts_file(network).encode(), durable=False, mode=0o644)
    files.replace(where.names, names_file(network).encode(), durable=False, mode=0o644)


def configuration(network: Network, where: Files) -> str:
    """The content of dnsmasq's configuration file.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    lines = ["strict-order"]
    if _dns(network):
        lines += _forwarders(network)
    else:
        lines.append("port=0")
    if network.domain is not None:
        if network.domain_local_only:
            lines.append(f"local=/{network.domain}/")
        lines += [f"domain={network.domain}", "expand-hosts"]
    if _dns(network):
        lines += [f"local=/{_reverse_zone(ip)}/" for ip in network.ips if ip.local_ptr]
        if network.dns is not None and network.dns.forward_plain_names is False:
            # Names without a domain are for this network alone.
            lines += ["domain-needed", "local=//"]
    lines += [f"pid-file={where.pid}", "except-interface=lo", "bind-dynamic", f"interface={network.bridge}"]
    if network.mode == "none":
        # There is no way out: guests get no default route, by DHCP or advertisements, and no query leaves the host.
        lines += ["dhcp-option=3", "no-resolv", "ra-param=*,0,0"]
    if _dns(network):
        lines += _records(network)
    lines += _dhcp(network, where)
    if any("\n" in line for line in lines):
        text = "a value with a line break cannot be used in dnsmasq's configuration"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_NETWORK)
    lines += [option.value for option in network.dnsmasq_options if option.value is not None]
    return _HEADER.format(name=network.name) + "".join(f"{line}\n" for line in lines)


def hosts_file(network: Network) -> str:
    """The hosts that get a certain address (dhcp-hostsfile)."""
    lines = [
        _host(host, ip) for version in (4, 6) if (ip := network.dhcp_of(version)) and ip.dhcp for host in ip.dhcp.hosts
    ]
    return "".join(f"{line}\n" for line in lines)


def names_file(network: Network) -> str:
    """The names that are not those of DHCP (addn-hosts)."""
    if network.dns is None:
        return ""
    return "".join("\t".join([host.ip or "", *host.hostnames]) + "\t\n" for host in network.dns.hosts)


def _dns(network: Network) -> bool:
    return network.dns is None or network.dns.enable is not False


def _forwarders(network: Network) -> list[str]:
    forwarders = network.dns.forwarders if network.dns is not None else []
    lines = []
    for one in forwarders:
        domain = f"/{one.domain}/" if one.domain is not None else ""
        lines.append(f"server={domain}{one.addr or '#'}")
    # A forwarder for everything replaces those of the host.
    return [*lines, "no-resolv"] if any(one.domain is None for one in forwarders) else lines


def _records(network: Network) -> list[str]:
    if network.dns is None:
        return []
    lines = [f"txt-record={txt.name},{txt.value}" for txt in network.dns.txts]
    for srv in network.dns.srvs:
        domain = f".{srv.domain}" if srv.domain else ""
        line = f"srv-host=_{srv.service}._{srv.protocol}{domain}"
        # A lone dot says that there is no such service, and so does a record without a target.
        if srv.target not in (None, "."):
            values = [srv.port or "1", srv.priority or "0", srv.weight]
            given = [srv.port, srv.priority, srv.weight]
            while given and not given[-1]:
                given.pop()
            line += "".join(f",{value}" for value in [srv.target, *values[: len(given)]])
        lines.append(line)
    return lines


def _dhcp(network: Network, where: Files) -> list[str]:
    lines: list[str] = []
    leases = 0
    served = False
    for ip in network.ips:
        if ip.tftp_root:
            lines += ["enable-tftp", f"tftp-root={ip.tftp_root}"]
    for version in (4, 6):
        ip_ = network.dhcp_of(version)
        if ip_ is None or ip_.dhcp is None:
            continue
        served = True
        lines += [_range(one, ip_) for one in ip_.dhcp.ranges]
        leases += sum(addresses.size_of(one, ip_) for one in ip_.dhcp.ranges)
        if not ip_.dhcp.ranges:
            lines.append(f"dhcp-range={ip_.address},static" + (f",{ip_.prefix_length}" if version == 6 else ""))
        if version == 4:
            lines += ["dhcp-no-override", "dhcp-authoritative"]
            for boot in ip_.dhcp.bootps:
                lines.append(f"dhcp-boot={boot.file}" + (f",,{boot.server}" if boot.server else ""))
    if leases:
        lines.append(f"dhcp-lease-max={leases}")
    if served:
        lines.append(f"dhcp-hostsfile={where.hosts}")
    if _dns(network):
        lines.append(f"addn-hosts={where.names}")
    if network.mtu is not None and network.dhcp_of(4):
        lines.append(f"dhcp-option=option:mtu,{network.mtu}")
    if network.dhcp_of(6):
        lines.append("enable-ra")
    else:
        lines += [f"dhcp-range={ip.address},ra-only" for ip in network.ips_of(6)]
    return lines


def _range(one: Range, ip: Ip) -> str:
    width = str(ip.network.netmask) if ip.version == 4 else str(ip.prefix_length)
    return ",".join([f"dhcp-range={one.start}", one.end or "", width, *_lease(one.lease)])


def _host(host: Host, ip: Ip) -> str:
    if ip.version == 6:
        who = [f"id:{host.id}", *([host.name] if host.name else [])] if host.id else [host.name or ""]
        return ",".join([*who, f"[{host.ip}]", *_lease(host.lease)])
    if host.mac:
        return ",".join([host.mac, host.ip or "", *([host.name] if host.name else []), *_lease(host.lease)])
    return ",".join([host.name or "", host.ip or "", *_lease(host.lease)])


def _lease(lease: Lease | None) -> list[str]:
    if lease is None or lease.expiry is None:
        return []
    return [f"{lease.expiry}{_UNITS[lease.unit or 'minutes']}" if lease.expiry else "infinite"]


def _reverse_zone(ip: Ip) -> str:
    """The zone of the names of an address's network (in-addr.arpa, ip6.arpa)."""
    prefix = ip.prefix_length
    label = 8 if ip.version == 4 else 4
    if prefix % label or not 0 < prefix < ip.host_address.max_prefixlen:
        text = f"PTR domain for IPv{ip.version} network with prefix {prefix} cannot be automatically created"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    labels = ip.network.network_address.reverse_pointer.split(".")
    return ".".join(labels[len(labels) - 2 - prefix // label :])


def program() -> str:
    """dnsmasq's path.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, it is not installed.
    """
    found = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        text = "cannot find 'dnsmasq', which networks with addresses need; install the package dnsmasq-base"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    return found


def start(where: Files) -> Process:
    """Start dnsmasq in the background; this process is a subreaper, and so its parent.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR with dnsmasq's message.
    """
    files.remove(where.pid)
    argv = [
        program(),
        f"--conf-file={where.configuration}",
        f"--dhcp-leasefile={where.leases}",
        f"--log-facility={where.log}",
    ]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_SECONDS, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(argv, str(error)) from None
    if done.returncode:
        text = f"unexpected exit status {done.returncode}: {done.stdout}{done.stderr}"
        if "Address already in use" in done.stderr:
            text += listeners.describe()
        raise _failed(argv, text)
    process = running(where)
    if process is None:
        raise _failed(argv, "it ended at once")
    return process


def running(where: Files) -> Process | None:
    """The dnsmasq of a network that runs, whoever started it."""
    content = files.read(where.pid)
    if content is None or not content.strip().isdigit():
        return None
    process = Process.of(int(content))
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The pid may be another process's by now.
    return process if f"--conf-file={where.configuration}".encode() in arguments and process.alive() else None


def reload(where: Files) -> None:
    """Let dnsmasq read its hosts and names again; no lease is lost."""
    process = running(where)
    if process is not None:
        try:
            os.kill(process.pid, signal.SIGHUP)
        except ProcessLookupError:
            pass


def _failed(argv: list[str], text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, f"Child process ({' '.join(argv)}) {text}", domain=c.VIR_FROM_NETWORK)

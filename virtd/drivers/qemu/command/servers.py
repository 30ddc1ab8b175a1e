"""Images on storage servers: QEMU's block nodes for each protocol, and who we are to the server."""

import grp
import os
import pwd
from collections.abc import Callable

from virtd import constants as c
from virtd.conf.domain.disk import Auth, Host, NetworkSource
from virtd.drivers.qemu.command.line import Line, Properties, internal, unsupported

_DEFAULT_PORTS = {
    "nbd": "10809",
    "http": "80",
    "https": "443",
    "ftp": "21",
    "ftps": "990",
    "tftp": "69",
    "ssh": "22",
    "iscsi": "3260",
    "gluster": "24007",
    "rbd": "0",
    "nfs": None,
    "vxhs": "9999",
    "sheepdog": "7000",
}
_IN_URLS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/")
# What the secret of a storage server's user is for, and what QEMU's driver calls it.
_AUTHS: dict[str, tuple[int, str, str, Properties]] = {
    "rbd": (c.VIR_SECRET_USAGE_TYPE_CEPH, "user", "key-secret", {"auth-client-required": ["cephx", "none"]}),
    "iscsi": (c.VIR_SECRET_USAGE_TYPE_ISCSI, "user", "password-secret", {}),
}


def _credentials(line: Line, number: str, auth: Auth | None, protocol: str | None) -> Properties:
    """Who we are to the storage server."""
    if auth is None or auth.secret is None:
        return {}
    if protocol is None or protocol not in _AUTHS:
        raise unsupported(f"authentication is not supported for protocol '{protocol}'")
    usage, user, password, more = _AUTHS[protocol]
    name = line.secret(f"libvirt-{number}-storage-auth-secret0", auth.secret, usage)
    return {user: auth.username, **more, password: name}


def node(line: Line, source: NetworkSource, number: str, auth: Auth | None) -> Properties:
    """The node that an image on a server is, but for its name.

    Args:
        line: the command line, to which secrets are added that the node needs.
        source: where the image is.
        number: what tells its nodes from those of others.
        auth: who we are to the server.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED or VIR_ERR_INTERNAL_ERROR, QEMU cannot get it there.
    """
    return _network(line, number, source) | _credentials(line, number, auth, source.protocol)


def _network(line: Line, number: str, source: NetworkSource) -> Properties:
    maker = _PROTOCOLS.get(source.protocol or "")
    if maker is None or (source.protocol not in line.binary.choices["blockdev"] and source.protocol != "sheepdog"):
        raise unsupported(f"'{source.protocol}' protocol is not supported with this QEMU binary")
    properties = {"driver": source.protocol, **maker(source)}
    given = line.setup.settings.nbd
    if source.tls or (source.tls is None and given.wanted and source.protocol == "nbd"):
        if source.protocol != "nbd":
            raise unsupported(f"TLS transport is not supported for disk protocol '{source.protocol}'")
        properties |= {"tls-creds": line.tls(f"libvirt-{number}-storage", given, endpoint="client")}
        properties |= {"tls-hostname": source.tls_hostname}
    encryption = source.encryption
    if encryption is not None and encryption.engine == "librbd":
        # The server's own library decrypts it.
        name = f"libvirt-{number}-format-encryption-secret0"
        key = line.secret(name, encryption.secrets[0], c.VIR_SECRET_USAGE_TYPE_VOLUME)
        properties["encrypt"] = {"format": encryption.format, "key-secret": key}
    if source.cookies and source.protocol in ("http", "https"):
        jar = "; ".join(f"{cookie.name}={cookie.value}" for cookie in source.cookies)
        name = f"libvirt-{number}-storage-httpcookie-secret0"
        properties |= {"cookie-secret": line.hidden(name, jar.encode())}
    return properties


def _host(source: NetworkSource) -> Host:
    if len(source.hosts) != 1:
        raise internal(f"{source.protocol} protocol accepts only one host")
    return source.hosts[0]


def _port(source: NetworkSource, host: Host) -> str | None:
    return host.port or _DEFAULT_PORTS[source.protocol or ""]


def _server(source: NetworkSource, host: Host) -> Properties:
    """A server as QEMU's SocketAddress."""
    if host.transport == "unix":
        return {"type": "unix", "path": host.socket}
    if host.transport == "rdma":
        raise internal("transport protocol 'rdma' is not yet supported")
    return {"type": "inet", "host": host.name, "port": _port(source, host)}


def _nbd(source: NetworkSource) -> Properties:
    return {"server": _server(source, _host(source)), "export": source.name}


def _rbd(source: NetworkSource) -> Properties:
    pool, _, image = (source.name or "").partition("/")
    servers = [{"host": host.name, "port": _port(source, host)} for host in source.hosts]
    return {
        "pool": pool,
        "image": image,
        "snapshot": source.snapshot,
        "conf": source.config,
        "server": servers or None,
    }


def _iscsi(source: NetworkSource) -> Properties:
    host = _host(source)
    target, _, lun = (source.name or "").partition("/")
    name = f"[{host.name}]" if ":" in (host.name or "") else host.name
    return {
        "portal": f"{name}:{_port(source, host)}",
        "target": target,
        "lun": _unit(lun, target),
        "transport": "tcp",
        "initiator-name": source.initiator,
    }


def _unit(text: str, target: str) -> int:
    """The number of an iSCSI target's unit."""
    if text and not text.isdigit():
        raise internal(f"cannot parse target for lunStr '{target}'")
    return int(text or 0)


def _gluster(source: NetworkSource) -> Properties:
    volume, _, path = (source.name or "").partition("/")
    return {"volume": volume, "path": path, "server": [_server(source, host) for host in source.hosts], "debug": 4}


def _url(source: NetworkSource) -> Properties:
    host = _host(source)
    name = f"[{host.name}]" if ":" in (host.name or "") else host.name
    path = (source.name or "").removeprefix("/")
    query = f"?{source.query}" if source.query else ""
    return {
        "url": f"{source.protocol}://{name}:{_port(source, host)}/{_quoted(path)}{query}",
        "sslverify": source.ssl_verify,
        "timeout": source.timeout,
        "readahead": source.readahead,
    }


def _quoted(path: str) -> str:
    """A path as it stands in a URL (RFC 3986, 3.3)."""
    return "".join(chr(one) if chr(one) in _IN_URLS else f"%{one:02X}" for one in os.fsencode(path))


def _ssh(source: NetworkSource) -> Properties:
    host = _host(source)
    return {"path": source.name, "server": {"host": host.name, "port": _port(source, host)}}


def _nfs(source: NetworkSource) -> Properties:
    properties: Properties = {"server": {"host": _host(source).name, "type": "inet"}, "path": source.name}
    for name, given, find in (
        ("user", source.identity_user, lambda text: pwd.getpwnam(text).pw_uid),
        ("group", source.identity_group, lambda text: grp.getgrnam(text).gr_gid),
    ):
        if given is not None:
            properties[name] = _number(given, name, find)
    return properties


def _number(given: str, what: str, find: Callable[[str], int]) -> int:
    """The number of a user or group: by its name, or as it stands there, perhaps behind a plus sign."""
    digits = given.removeprefix("+")
    try:
        return int(digits) if given.startswith("+") else find(given)
    except KeyError:
        if digits.isdigit():
            return int(digits)
        raise internal(f"Failed to parse {what} '{given}'") from None


def _sheepdog(source: NetworkSource) -> Properties:
    return {"server": _server(source, _host(source)), "vdi": source.name}


_PROTOCOLS: dict[str, Callable[[NetworkSource], Properties]] = {
    "nbd": _nbd,
    "rbd": _rbd,
    "iscsi": _iscsi,
    "gluster": _gluster,
    "http": _url,
    "https": _url,
    "ftp": _url,
    "ftps": _url,
    "ssh": _ssh,
    "nfs": _nfs,
    "sheepdog": _sheepdog,
}

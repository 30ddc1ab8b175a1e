"""qemu.conf: what holds for all guests of an instance. libvirt's file and names, as far as they mean something here.

It is read when a guest is defined or started, so that a change counts from the next one on; there is nothing to reload.
What is not there has libvirt's default; names that mean nothing here are passed over, as libvirt does with names that
it does not know.
"""

import os
from typing import Any, NamedTuple

from virtd.conffile import parse, syntax_error
from virtd.state import files

CERTIFICATES = "/etc/pki/qemu"
"""Where certificates are by default. Below /etc/pki, displays may have directories of their own."""
_OWN = {"vnc": "/etc/pki/libvirt-vnc", "spice": "/etc/pki/libvirt-spice"}


class Tls(NamedTuple):
    """The certificates for something that can be encrypted.

    Attributes:
        wanted: whether it is encrypted, where the guest does not say so itself.
        directory: where QEMU finds ca-cert.pem, server-cert.pem, server-key.pem and so on.
        verify: whether the other side must have a certificate, too.
    """

    wanted: bool = False
    directory: str = CERTIFICATES
    verify: bool = True


class Settings(NamedTuple):
    """The settings; names are those of the file."""

    user: str | None = None
    group: str | None = None
    vnc_listen: str = "127.0.0.1"
    spice_listen: str = "127.0.0.1"
    vnc: Tls = Tls()
    spice: Tls = Tls()
    chardev: Tls = Tls()
    nbd: Tls = Tls()


def load(directory: str) -> Settings:
    """The settings of an instance.

    Args:
        directory: its configuration directory.

    Raises:
        VirtError: VIR_ERR_CONF_SYNTAX naming file and line.
    """
    path = f"{directory}/qemu.conf"
    content = files.read(path)
    if not content:
        return Settings()
    said: dict[str, Any] = {}
    for setting in parse(content.decode(errors="replace"), path):
        kind = _kind(setting.name)
        if kind is not None:
            if not isinstance(setting.value, kind):
                wanted = "a string" if kind is str else "an unsigned long"
                raise syntax_error(f"{path}:{setting.line}", f"{setting.name}: invalid type: expected {wanted}")
            said[setting.name] = setting.value
    common = said.get("default_tls_x509_cert_dir", CERTIFICATES), bool(said.get("default_tls_x509_verify", 1))
    found: dict[str, Any] = {name: _tls(name, said, *common) for name in ("vnc", "spice", "chardev", "nbd")}
    found |= {name: said[name] for name in ("user", "group", "vnc_listen", "spice_listen") if name in said}
    return Settings(**found)


def _kind(name: str) -> type | None:
    """The type of a setting; None for one that means nothing here."""
    if name in ("user", "group", "vnc_listen", "spice_listen", "default_tls_x509_cert_dir"):
        return str
    if name == "default_tls_x509_verify":
        return int
    subject, _, rest = name.partition("_")
    if subject not in ("vnc", "spice", "chardev", "nbd"):
        return None
    return {"tls": int, "tls_x509_cert_dir": str, "tls_x509_verify": int}.get(rest)


def _tls(subject: str, said: dict[str, Any], directory: str, verify: bool) -> Tls:
    own = _OWN.get(subject)
    usual = own if own is not None and directory == CERTIFICATES and os.path.isdir(own) else directory
    return Tls(
        wanted=bool(said.get(f"{subject}_tls", 0)),
        directory=said.get(f"{subject}_tls_x509_cert_dir", usual),
        verify=bool(said.get(f"{subject}_tls_x509_verify", verify)),
    )

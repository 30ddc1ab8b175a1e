"""What a guest's agent is asked: file systems, users, keys, names."""

from __future__ import annotations

from virtd import constants as c
from virtd.shell import typed
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Lines, Output, Plain, Single, Table
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INFO = {
    "user": c.VIR_DOMAIN_GUEST_INFO_USERS,
    "os": c.VIR_DOMAIN_GUEST_INFO_OS,
    "timezone": c.VIR_DOMAIN_GUEST_INFO_TIMEZONE,
    "hostname": c.VIR_DOMAIN_GUEST_INFO_HOSTNAME,
    "filesystem": c.VIR_DOMAIN_GUEST_INFO_FILESYSTEM,
    "disk": c.VIR_DOMAIN_GUEST_INFO_DISKS,
    "interface": c.VIR_DOMAIN_GUEST_INFO_INTERFACES,
}
_HOSTNAME_SOURCES = {"lease": 1, "agent": 2}  # virDomainGetHostnameFlags


def _freezing(procedure: str, done: str, failed: str) -> Any:
    """A command that freezes or thaws file systems."""

    def function(session: Session, args: Args) -> Output:
        domain = session.domain(args.required("domain"))
        with failing(failed):
            count = session.call(procedure, domain, args.rest("mountpoint"), 0)
        return Plain("filesystems", f"{done} {count} filesystem(s)\n", count)

    return function


def domfsinfo(session: Session, args: Args) -> Output:
    """virDomainGetFSInfo."""
    domain = session.domain(args.required("domain"))
    with failing("Unable to get filesystem information"):
        found = session.call("domain_get_fsinfo", domain, 0)[0]
    if not found:
        return Plain("filesystems", "" if session.quiet else "No filesystems are mounted in the domain", [])
    table = Table((("mountpoint", "Mountpoint"), ("name", "Name"), ("type", "Type"), ("target", "Target")))
    for one in found:
        table.add(one.mountpoint, one.name, one.fstype, ",".join(one.dev_aliases))
    return table


def domfstrim(session: Session, args: Args) -> None:
    """virDomainFSTrim."""
    domain = session.domain(args.required("domain"))
    least = args.scaled("minimum") or 0
    with failing("Unable to invoke fstrim"):
        session.call("domain_fstrim", domain, args.text("mountpoint"), least, 0)


def domhostname(session: Session, args: Args) -> Output:
    """virDomainGetHostname."""
    domain = session.domain(args.required("domain"))
    source = args.text("source")
    if source is not None and source not in _HOSTNAME_SOURCES:
        raise Failure(f"Unknown data source '{source}'")
    with failing("failed to get hostname"):
        flags = _HOSTNAME_SOURCES.get(source or "", 0)
        return Single("hostname", session.call("domain_get_hostname", domain, flags))


def get_keys(session: Session, args: Args) -> Output:
    """virDomainAuthorizedSSHKeysGet."""
    domain = session.domain(args.required("domain"))
    return Lines(session.call("domain_authorized_ssh_keys_get", domain, args.required("user"), 0))


def set_keys(session: Session, args: Args) -> None:
    """virDomainAuthorizedSSHKeysSet."""
    args.exclusive("reset", "remove")
    domain = session.domain(args.required("domain"))
    path = args.text("file")
    flags = 0 if args.flag("reset") else c.VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_APPEND
    if args.flag("remove"):
        flags = c.VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_REMOVE
    keys: list[str] = []
    if path is not None:
        keys = [line for line in read_text(path).splitlines() if line and not line.startswith("#")]
        if not keys:
            raise Failure(f"File {path} contains no keys")
    elif not args.flag("reset"):
        raise Failure("Option --file is required")
    session.call("domain_authorized_ssh_keys_set", domain, args.required("user"), keys, flags)


def set_password(session: Session, args: Args) -> None:
    """virDomainSetUserPassword."""
    name = args.required("domain")
    domain = session.domain(name)
    user, password = args.required("user"), args.required("password")
    flags = c.VIR_DOMAIN_PASSWORD_ENCRYPTED if args.flag("encrypted") else 0
    session.call("domain_set_user_password", domain, user, password, flags)
    session.say(f"Password set successfully for {user} in {name}")


def set_timeout(session: Session, args: Args) -> None:
    """virDomainAgentSetResponseTimeout."""
    domain = session.domain(args.required("domain"))
    timeout = args.number("timeout")
    block = c.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK
    session.call("domain_agent_set_response_timeout", domain, block if timeout is None else timeout, 0)


def guestinfo(session: Session, args: Args) -> Output:
    """virDomainGetGuestInfo."""
    domain = session.domain(args.required("domain"))
    found = session.call("domain_get_guest_info", domain, args.flags(_INFO), 0)
    return Plain("info", "".join(f"{one.field:<20}: {typed.text(one)}\n" for one in found), typed.data(found))


COMMANDS = (
    Command(
        "domfsfreeze",
        "<domain> [<mountpoint>...]",
        "hold a guest's file systems still",
        _freezing("domain_fsfreeze", "Froze", "Unable to freeze filesystems"),
    ),
    Command("domfsinfo", "<domain>", "show a guest's file systems", domfsinfo),
    Command(
        "domfsthaw",
        "<domain> [<mountpoint>...]",
        "let a guest's file systems go on",
        _freezing("domain_fsthaw", "Thawed", "Unable to thaw filesystems"),
    ),
    Command(
        "domfstrim",
        "<domain> [--minimum <number>] [--mountpoint <string>]",
        "give back what a guest's file systems do not use",
        domfstrim,
    ),
    Command(
        "domhostname",
        "<domain> [--source <string>]",
        "show the host name of a guest",
        domhostname,
        kinds={"source": "hostname-source"},
    ),
    Command("get-user-sshkeys", "<domain> <user>", "show the SSH keys that let one in as a user", get_keys),
    Command(
        "guest-agent-timeout", "<domain> [--timeout =<number>]", "set how long a guest's agent may take", set_timeout
    ),
    Command(
        "guestinfo",
        "<domain> [--user] [--os] [--timezone] [--hostname] [--filesystem] [--disk] [--interface]",
        "show what a guest's agent knows of it",
        guestinfo,
    ),
    Command(
        "set-user-password",
        "<domain> <user> <password> [--encrypted]",
        "set the password of a guest's user",
        set_password,
    ),
    Command(
        "set-user-sshkeys",
        "<domain> <user> [--file <string>] [--reset] [--remove]",
        "change the SSH keys that let one in as a user",
        set_keys,
        kinds={"file": "path"},
    ),
)

"""What goes to a guest's monitor or agent as it is, and other things of single hypervisors."""

from __future__ import annotations

import json

from virtd import constants as c
from virtd.drivers.base import Event, Reply
from virtd.errors import VirtError
from virtd.shell import eventloop, typed
from virtd.shell.command import Args, Command
from virtd.shell.commands.lifecycle import pass_fds
from virtd.shell.eventloop import Subscription
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from virtd.shell.eventloop import Description


def _json(text: str, *, pretty: bool) -> str:
    """An answer in JSON, in lines if it is to be read by people."""
    if not pretty:
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        raise Failure("failed to parse JSON returned by qemu") from None


def monitor_command(session: Session, args: Args) -> Output:
    """virDomainQemuMonitorCommand, virDomainQemuMonitorCommandWithFiles."""
    args.exclusive("hmp", "pretty")
    args.exclusive("hmp", "return-value")
    domain = session.domain(args.required("domain"))
    human = args.flag("hmp")
    command = _human(args) if human else _machine(args)
    flags = c.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP if human else 0
    fds = pass_fds(args)
    if fds is not None:
        answer = session.call("qemu_domain_monitor_command_with_files", domain, command, flags, fds=fds)
    else:
        answer = session.call("qemu_domain_monitor_command", domain, command, flags)
    if isinstance(answer, Reply):
        answer = answer.value
    if args.flag("return-value"):
        try:
            answer = json.dumps(json.loads(answer)["return"], ensure_ascii=False, separators=(",", ":"))
        except (ValueError, KeyError):
            raise Failure("failed to extract 'return' from the JSON returned by qemu") from None
    if args.flag("pretty") or args.flag("return-value"):
        return Plain("answer", _json(answer, pretty=args.flag("pretty")), answer)
    return Plain("answer", f"{answer}\n", answer)


def _human(args: Args) -> str:
    return " ".join(args.rest("cmd"))


def _machine(args: Args) -> str:
    """A command in JSON; a bare name with members of its arguments is put into that form."""
    words = args.rest("cmd")
    if words[0].lstrip().startswith("{"):
        return " ".join(words)
    rest = ",".join(words[1:])
    try:
        arguments = json.loads(rest if rest.lstrip().startswith("{") else f"{{{rest}}}") if rest else None
    except ValueError as error:
        raise Failure(f"failed to wrap arguments '{rest}' into a QMP command wrapper", str(error)) from None
    command: dict[str, Any] = {"execute": words[0]}
    if arguments is not None:
        command["arguments"] = arguments
    return json.dumps(command, ensure_ascii=False)


def agent_command(session: Session, args: Args) -> Output:
    """virDomainQemuAgentCommand."""
    for one, other in (("timeout", "async"), ("timeout", "block"), ("async", "block")):
        args.exclusive(one, other)
    domain = session.domain(args.required("domain"))
    timeout = args.number("timeout")
    if timeout is not None and timeout < 1:
        raise Failure("timeout must be positive")
    seconds = c.VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT if timeout is None else timeout
    if args.flag("async"):
        seconds = c.VIR_DOMAIN_QEMU_AGENT_COMMAND_NOWAIT
    elif args.flag("block"):
        seconds = c.VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK
    answer = session.call("qemu_domain_agent_command", domain, " ".join(args.rest("cmd")), seconds, 0)
    return Plain("answer", _json(answer or "", pretty=args.flag("pretty")) + "\n", answer)


def monitor_event(session: Session, args: Args) -> Output:
    """virConnectDomainQemuMonitorEventRegister."""
    name, pretty = args.text("domain"), args.flag("pretty")
    domain = None if name is None else session.domain(name)
    flags = args.flags(
        {
            "regex": c.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX,
            "no-case": c.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_NOCASE,
        }
    )

    def describe(event: Event) -> Description:
        if event.procedure != "DOMAIN_MONITOR_EVENT":
            return None
        callback, guest, kind, seconds, micros, details = event.values
        shown = _json(details, pretty=pretty) if details else "<null>"
        data = {"event": kind, "domain": guest.name, "seconds": seconds + micros / 1e6, "details": details}
        if args.flag("timestamp"):
            return callback, f"event {kind} for domain '{guest.name}': {shown}", data
        return callback, f"event {kind} at {seconds}.{micros:06} for domain '{guest.name}': {shown}", data

    with Subscription(session, "qemu_connect_domain_monitor_event_deregister") as subscription:
        subscription.add("qemu_connect_domain_monitor_event_register", domain, args.text("event"), flags)
        return eventloop.wait(session, args, subscription, describe)


def qemu_attach(session: Session, args: Args) -> None:
    """virDomainQemuAttach."""
    pid = args.natural("pid")
    with failing(f"Failed to attach to pid {pid}"):
        domain = session.call("qemu_domain_attach", pid, 0)
    session.say(f"Domain '{domain.name}' attached to pid {pid}\n")


def enter_namespace(session: Session, args: Args) -> None:
    """virDomainLxcOpenNamespace, for containers, of which there are none here."""
    session.domain(args.required("domain"))
    raise VirtError(c.VIR_ERR_NO_SUPPORT, "virDomainLxcOpenNamespace", domain=c.VIR_FROM_DOMAIN)


def fd_associate(session: Session, args: Args) -> None:
    """virDomainFDAssociate."""
    domain = session.domain(args.required("domain"))
    flags = args.flags(
        {
            "seclabel-restore": c.VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_RESTORE,
            "seclabel-writable": c.VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_WRITABLE,
        }
    )
    session.call("domain_fd_associate", domain, args.required("name"), flags, fds=pass_fds(args) or [])


def launch_info(session: Session, args: Args) -> Output:
    """virDomainGetLaunchSecurityInfo."""
    domain = session.domain(args.required("domain"))
    with failing("Unable to get launch security parameters"):
        found = session.call("domain_get_launch_security_info", domain, 0)
    return Plain("security", "".join(f"{one.field:<15}: {typed.text(one)}\n" for one in found), typed.data(found))


def set_launch_state(session: Session, args: Args) -> None:
    """virDomainSetLaunchSecurityState."""
    domain = session.domain(args.required("domain"))
    header, secret = args.text("secrethdr"), args.text("secret")
    if header is None or secret is None:
        raise Failure("Both secret and the secret header are required")
    texts = c.VIR_TYPED_PARAM_STRING
    wanted = [
        typed.make("sev-secret-header", texts, read_text(header)),
        typed.make("sev-secret", texts, read_text(secret)),
    ]
    address = args.natural("set-address", 2**64 - 1)
    if address is not None:
        wanted.append(typed.make("sev-secret-set-address", c.VIR_TYPED_PARAM_ULLONG, address))
    session.call("domain_set_launch_security_state", domain, wanted, 0)


COMMANDS = (
    Command(
        "dom-fd-associate",
        "<domain> <name> <pass-fds> [--seclabel-writable] [--seclabel-restore]",
        "give a guest's next start file descriptors under a name",
        fd_associate,
    ),
    Command("domlaunchsecinfo", "<domain>", "show how a guest's memory is protected", launch_info),
    Command(
        "domsetlaunchsecstate",
        "<domain> [--secrethdr =<string>] [--secret =<string>] [--set-address <number>]",
        "put a secret into a guest's protected memory",
        set_launch_state,
        kinds={"secrethdr": "path", "secret": "path"},
    ),
    Command(
        "lxc-enter-namespace",
        "<domain> [--noseclabel] <cmd>...",
        "run a command in a container",
        enter_namespace,
    ),
    Command(
        "qemu-agent-command",
        "<domain> [--timeout =<number>] [--async] [--block] [--pretty] <cmd>...",
        "send a command to a guest's agent, at one's own risk",
        agent_command,
    ),
    Command("qemu-attach", "<pid>", "take over a QEMU that somebody else started", qemu_attach),
    Command(
        "qemu-monitor-command",
        "<domain> [--hmp] [--pretty] [--return-value] [--pass-fds =<string>] <cmd>...",
        "send a command to QEMU's monitor, at one's own risk",
        monitor_command,
    ),
    Command(
        "qemu-monitor-event",
        "[--domain <string>] [--event <string>] [--pretty] [--loop] [--timeout <number>] [--regex] [--no-case] "
        "[--timestamp]",
        "wait for events of QEMU's monitor",
        monitor_event,
    ),
)

"""The life of guests: from definition to start, through pauses and reboots, to the end."""

from virtd import constants as c
from virtd.shell import jobwatch
from virtd.shell.acts import act, affect, autostart, make
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.session import Session, read_text

_MODES = {
    "acpi": (c.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN, c.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN),
    "agent": (c.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT, c.VIR_DOMAIN_REBOOT_GUEST_AGENT),
    "initctl": (c.VIR_DOMAIN_SHUTDOWN_INITCTL, c.VIR_DOMAIN_REBOOT_INITCTL),
    "signal": (c.VIR_DOMAIN_SHUTDOWN_SIGNAL, c.VIR_DOMAIN_REBOOT_SIGNAL),
    "paravirt": (c.VIR_DOMAIN_SHUTDOWN_PARAVIRT, c.VIR_DOMAIN_REBOOT_PARAVIRT),
}
_START_FLAGS = {
    "paused": c.VIR_DOMAIN_START_PAUSED,
    "autodestroy": c.VIR_DOMAIN_START_AUTODESTROY,
    "bypass-cache": c.VIR_DOMAIN_START_BYPASS_CACHE,
    "force-boot": c.VIR_DOMAIN_START_FORCE_BOOT,
    "reset-nvram": c.VIR_DOMAIN_START_RESET_NVRAM,
}
_CREATE_FLAGS = {
    "paused": c.VIR_DOMAIN_START_PAUSED,
    "autodestroy": c.VIR_DOMAIN_START_AUTODESTROY,
    "validate": c.VIR_DOMAIN_START_VALIDATE,
    "reset-nvram": c.VIR_DOMAIN_START_RESET_NVRAM,
}
_DESTROY_FLAGS = {"graceful": c.VIR_DOMAIN_DESTROY_GRACEFUL, "remove-logs": c.VIR_DOMAIN_DESTROY_REMOVE_LOGS}
# The index is the number of virNodeSuspendTarget, virDomainLifecycle, virDomainLifecycleAction.
_SUSPEND_TARGETS = ("mem", "disk", "hybrid")
_LIFECYCLES = ("poweroff", "reboot", "crash")
_ACTIONS = ("destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart")
_CODESETS = ("linux", "xt", "atset1", "atset2", "atset3", "os_x", "xt_kbd", "usb", "win32", "qnum")
# virDomainProcessSignal
_SIGNALS = (
    "nop hup int quit ill trap abrt bus fpe kill usr1 segv usr2 pipe alrm term stkflt chld cont stop tstp ttin ttou "
    "urg xcpu xfsz vtalrm prof winch poll pwr sys "
    + " ".join(f"rt{number}" for number in range(33))
).split()  # fmt: skip


def pass_fds(args: Args) -> list[int] | None:
    """The descriptors of --pass-fds; None if it was not given."""
    text = args.text("pass-fds", empty=True)
    if not text:
        return None
    numbers = []
    for part in text.split(","):
        if not (part.isascii() and part.isdigit()):
            raise Failure(f"Unable to parse FD number '{part}'")
        numbers.append(int(part))
    return numbers


def start(session: Session, args: Args) -> None:
    """virDomainCreate, virDomainCreateWithFlags, virDomainCreateWithFiles."""
    domain = session.domain(args.required("domain"), "uuid name")
    if domain.id >= 0:
        raise Failure("Domain is already active")
    if args.flag("console"):
        _require_terminal()
    fds, flags = pass_fds(args), args.flags(_START_FLAGS)
    with failing(f"Failed to start domain '{domain.name}'"), jobwatch.waiting(f"starting {domain.name}"):
        if fds is not None:
            session.call("domain_create_with_files", domain, flags, fds=fds)
        elif flags:
            session.call("domain_create_with_flags", domain, flags)
        else:
            session.call("domain_create", domain)
    session.say(f"Domain '{domain.name}' started\n")
    _console(session, args, domain.name)


def create(session: Session, args: Args) -> None:
    """virDomainCreateXML, virDomainCreateXMLWithFiles."""
    path = args.required("file")
    if args.flag("console"):
        _require_terminal()
    document, fds, flags = read_text(path), pass_fds(args), args.flags(_CREATE_FLAGS)
    with failing(f"Failed to create domain from {path}"), jobwatch.waiting(f"starting what is in {path}"):
        if fds is not None:
            domain = session.call("domain_create_xml_with_files", document, flags, fds=fds)
        else:
            domain = session.call("domain_create_xml", document, flags)
    session.say(f"Domain '{domain.name}' created from {path}\n")
    _console(session, args, domain.name)


def _require_terminal() -> None:
    from virtd.shell import console

    console.require_terminal()


def _console(session: Session, args: Args, name: str) -> None:
    """Go on to the console of a guest that has just been started."""
    if args.flag("console"):
        from virtd.shell import console

        console.attach(session, session.domain(name, "name"), None, 0)


def destroy(session: Session, args: Args) -> None:
    """virDomainDestroy, virDomainDestroyFlags."""
    name = args.required("domain")
    domain, flags = session.domain(name), args.flags(_DESTROY_FLAGS)
    with failing(f"Failed to destroy domain '{name}'"):
        if flags:
            session.call("domain_destroy_flags", domain, flags)
        else:
            session.call("domain_destroy", domain)
    session.say(f"Domain '{name}' destroyed\n")


def _mode(args: Args, which: int, last: str) -> int:
    """The flags of --mode, a list of words parted by commas."""
    flags = 0
    for mode in (args.text("mode") or "").split(","):
        if mode and mode not in _MODES:
            expected = f"'acpi', 'agent', 'initctl', 'signal'{last} or 'paravirt'"
            raise Failure(f"Unknown mode {mode} value, expecting {expected}")
        if mode:
            flags |= _MODES[mode][which]
    return flags


def shutdown(session: Session, args: Args) -> None:
    """virDomainShutdown, virDomainShutdownFlags."""
    flags = _mode(args, 0, ",")
    name = args.required("domain")
    domain = session.domain(name)
    with failing(f"Failed to shutdown domain '{name}'"):
        if flags:
            session.call("domain_shutdown_flags", domain, flags)
        else:
            session.call("domain_shutdown", domain)
    session.say(f"Domain '{name}' is being shutdown\n")


def reboot(session: Session, args: Args) -> None:
    """virDomainReboot."""
    flags = _mode(args, 1, "")
    name = args.required("domain")
    domain = session.domain(name)
    with failing(f"Failed to reboot domain '{name}'"):
        session.call("domain_reboot", domain, flags)
    session.say(f"Domain '{name}' is being rebooted\n")


def domrename(session: Session, args: Args) -> None:
    """virDomainRename."""
    domain = session.domain(args.required("domain"), "uuid name")
    session.call("domain_rename", domain, args.required("new-name"), 0)
    session.say("Domain successfully renamed\n")


def pm_suspend(session: Session, args: Args) -> None:
    """virDomainPMSuspendForDuration."""
    name = args.required("domain")
    domain = session.domain(name)
    duration = args.natural("duration", 2**64 - 1) or 0
    target = args.required("target")
    if target not in _SUSPEND_TARGETS:
        raise Failure("Invalid target")
    with failing(f"Domain '{name}' could not be suspended"):
        session.call("domain_pm_suspend_for_duration", domain, _SUSPEND_TARGETS.index(target), duration, 0)
    session.say(f"Domain '{name}' successfully suspended\n")


def send_key(session: Session, args: Args) -> None:
    """virDomainSendKey."""
    domain = session.domain(args.required("domain"))
    codeset = args.text("codeset") or "linux"
    hold = args.natural("holdtime") or 0
    if codeset not in _CODESETS:
        raise Failure(f"unknown codeset: '{codeset}'")
    codes: list[int] = []
    for word in args.rest("keycode"):
        if len(codes) == c.VIR_DOMAIN_SEND_KEY_MAX_KEYS:
            raise Failure("too many keycodes")
        codes.append(_keycode(codeset, word))
    session.call("domain_send_key", domain, _CODESETS.index(codeset), hold, codes, 0)


def _keycode(codeset: str, word: str) -> int:
    try:
        number = int(word, 8 if word.startswith("0") and word.isdigit() else 0)
    except ValueError:
        from virtd.shell import keynames

        found = keynames.find(codeset, word)
        number = -1 if found is None else found
    if not 0 <= number < 0xFFFF:
        raise Failure(f"invalid keycode: '{word}'")
    return number


def send_signal(session: Session, args: Args) -> None:
    """virDomainSendProcessSignal."""
    domain = session.domain(args.required("domain"))
    pid = args.number("pid", -(2**63), 2**63 - 1)
    word = args.required("signame")
    name = word.lower().removeprefix("sig_").removeprefix("sig")
    if word.isdigit():
        number = int(word)
    elif name in _SIGNALS:
        number = _SIGNALS.index(name)
    else:
        raise Failure(f"malformed signal name: {word}")
    session.call("domain_send_process_signal", domain, pid, number, 0)


def set_lifecycle_action(session: Session, args: Args) -> None:
    """virDomainSetLifecycleAction."""
    flags = affect(args)
    kind, action = args.required("type"), args.required("action")
    if kind not in _LIFECYCLES:
        raise Failure(f"Invalid lifecycle type '{kind}'.")
    if action not in _ACTIONS:
        raise Failure(f"Invalid lifecycle action '{action}'.")
    domain = session.domain(args.required("domain"))
    session.call("domain_set_lifecycle_action", domain, _LIFECYCLES.index(kind), _ACTIONS.index(action), flags)


COMMANDS = (
    Command(
        "autostart",
        "<domain> [--disable]",
        "have a guest started with the machine",
        autostart("domain", "domain_set_autostart", "domain '{name}'", failed="Failed to"),
    ),
    Command(
        "create",
        "<file> [--console] [--paused] [--autodestroy] [--pass-fds <string>] [--validate] [--reset-nvram]",
        "start a guest from an XML file, without a definition that stays",
        create,
    ),
    Command(
        "define",
        "<file> [--validate]",
        "define a guest, or change its definition, from an XML file",
        make(
            "domain_define_xml_flags",
            "Domain '{name}' defined from {file}",
            "Failed to define domain from {file}",
            flags={"validate": c.VIR_DOMAIN_DEFINE_VALIDATE},
            plain="domain_define_xml",
        ),
    ),
    Command("destroy", "<domain> [--graceful] [--remove-logs]", "end a guest at once, as by pulling its plug", destroy),
    Command(
        "dompmsuspend",
        "<domain> <target> [--duration =<number>]",
        "have a guest go to sleep by its own power management",
        pm_suspend,
        kinds={"target": "suspend-target"},
    ),
    Command(
        "dompmwakeup",
        "<domain>",
        "wake a guest that sleeps",
        act(
            "domain",
            "domain_pm_wakeup",
            "Domain '{name}' successfully woken up",
            "Domain '{name}' could not be woken up",
            0,
        ),
    ),
    Command("domrename", "<domain> <new-name>", "give a guest that does not run another name", domrename),
    Command(
        "inject-nmi",
        "<domain>",
        "send a non-maskable interrupt to a guest",
        act("domain", "domain_inject_nmi", "", "", 0),
    ),
    Command("reboot", "<domain> [--mode <string>]", "ask a guest to reboot", reboot),
    Command(
        "reset",
        "<domain>",
        "reset a guest at once, as by its reset button",
        act("domain", "domain_reset", "Domain '{name}' was reset", "Failed to reset domain '{name}'", 0),
    ),
    Command(
        "resume",
        "<domain>",
        "let a paused guest go on",
        act("domain", "domain_resume", "Domain '{name}' resumed", "Failed to resume domain '{name}'"),
    ),
    Command(
        "send-key",
        "<domain> [--codeset =<string>] [--holdtime =<number>] <keycode>...",
        "press keys on a guest's keyboard",
        send_key,
    ),
    Command(
        "send-process-signal", "<domain> <pid> <signame>", "send a signal to a process of a container", send_signal
    ),
    Command(
        "set-lifecycle-action",
        "<domain> <type> <action> [--config] [--live] [--current]",
        "say what becomes of a guest that powers off, reboots or crashes",
        set_lifecycle_action,
        kinds={"type": "lifecycle", "action": "lifecycle-action"},
    ),
    Command("shutdown", "<domain> [--mode <string>]", "ask a guest to shut down", shutdown),
    Command(
        "start",
        "<domain> [--console] [--paused] [--autodestroy] [--bypass-cache] [--force-boot] [--pass-fds <string>] "
        "[--reset-nvram]",
        "start a guest that is defined",
        start,
    ),
    Command(
        "suspend",
        "<domain>",
        "pause a guest",
        act("domain", "domain_suspend", "Domain '{name}' suspended", "Failed to suspend domain '{name}'"),
    ),
)

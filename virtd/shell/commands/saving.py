"""Guests' memory on disk: saved to go on later, or dumped to be looked at."""

from virtd import constants as c
from virtd.shell import jobwatch
from virtd.shell.acts import document
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output
from virtd.shell.session import Session, read_text

_RUN_FLAGS = {"running": c.VIR_DOMAIN_SAVE_RUNNING, "paused": c.VIR_DOMAIN_SAVE_PAUSED}
_SAVE_FLAGS = {"bypass-cache": c.VIR_DOMAIN_SAVE_BYPASS_CACHE, **_RUN_FLAGS}
_RESTORE_FLAGS = {**_SAVE_FLAGS, "reset-nvram": c.VIR_DOMAIN_SAVE_RESET_NVRAM}
_DUMP_FLAGS = {
    "live": c.VIR_DUMP_LIVE,
    "crash": c.VIR_DUMP_CRASH,
    "bypass-cache": c.VIR_DUMP_BYPASS_CACHE,
    "reset": c.VIR_DUMP_RESET,
    "memory-only": c.VIR_DUMP_MEMORY_ONLY,
}
_FORMATS = {
    "elf": c.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW,
    "kdump-zlib": c.VIR_DOMAIN_CORE_DUMP_FORMAT_KDUMP_ZLIB,
    "kdump-lzo": c.VIR_DOMAIN_CORE_DUMP_FORMAT_KDUMP_LZO,
    "kdump-snappy": c.VIR_DOMAIN_CORE_DUMP_FORMAT_KDUMP_SNAPPY,
    "win-dmp": c.VIR_DOMAIN_CORE_DUMP_FORMAT_WIN_DMP,
}


def _run_flags(args: Args, table: dict[str, int]) -> int:
    args.exclusive("running", "paused")
    return args.flags(table)


def _text(args: Args, name: str) -> str | None:
    """The document in a file that an option names; None without the option."""
    path = args.text(name)
    return None if path is None else read_text(path)


def save(session: Session, args: Args) -> None:
    """virDomainSave, virDomainSaveFlags."""
    flags = _run_flags(args, _SAVE_FLAGS)
    name, path = args.required("domain"), args.required("file")
    domain = session.domain(name)
    xml = _text(args, "xml")
    with (
        failing(f"Failed to save domain '{name}' to {path}"),
        jobwatch.watching(session, domain, "Save", verbose=args.flag("verbose")),
    ):
        if flags or xml is not None:
            session.call("domain_save_flags", domain, path, xml, flags)
        else:
            session.call("domain_save", domain, path)
    session.say(f"\nDomain '{name}' saved to {path}\n")


def restore(session: Session, args: Args) -> None:
    """virDomainRestore, virDomainRestoreFlags."""
    flags = _run_flags(args, _RESTORE_FLAGS)
    path, xml = args.required("file"), _text(args, "xml")
    with failing(f"Failed to restore domain from {path}"), jobwatch.waiting(f"restoring from {path}"):
        if flags or xml is not None:
            session.call("domain_restore_flags", path, xml, flags)
        else:
            session.call("domain_restore", path)
    session.say(f"Domain restored from {path}\n")


def dump(session: Session, args: Args) -> None:
    """virDomainCoreDump, virDomainCoreDumpWithFormat."""
    args.exclusive("live", "crash")
    args.exclusive("crash", "reset")
    name, path = args.required("domain"), args.required("file")
    domain = session.domain(name)
    flags, form = args.flags(_DUMP_FLAGS), args.text("format")
    if form is not None:
        if not args.flag("memory-only"):
            raise Failure("--format only works with --memory-only")
        if form not in _FORMATS:
            known = "'kdump-zlib', 'kdump-lzo', 'kdump-snappy', 'win-dmp' or 'elf'"
            raise Failure(f"format '{form}' is not supported, expecting {known}")
    with (
        failing(f"Failed to core dump domain '{name}' to {path}"),
        jobwatch.watching(session, domain, "Dump", verbose=args.flag("verbose")),
    ):
        if form is not None and _FORMATS[form]:
            session.call("domain_core_dump_with_format", domain, path, _FORMATS[form], flags)
        else:
            session.call("domain_core_dump", domain, path, flags)
    session.say(f"\nDomain '{name}' dumped to {path}\n")


def managedsave(session: Session, args: Args) -> None:
    """virDomainManagedSave."""
    flags = _run_flags(args, _SAVE_FLAGS)
    name = args.required("domain")
    domain = session.domain(name)
    with (
        failing(f"Failed to save domain '{name}' state"),
        jobwatch.watching(session, domain, "Managedsave", verbose=args.flag("verbose")),
    ):
        session.call("domain_managed_save", domain, flags)
    session.say(f"\nDomain '{name}' state saved by libvirt\n")


def managedsave_remove(session: Session, args: Args) -> None:
    """virDomainManagedSaveRemove."""
    name = args.required("domain")
    domain = session.domain(name)
    with failing("Failed to check for domain managed save image"):
        there = session.call("domain_has_managed_save_image", domain, 0)
    if not there:
        session.say(f"Domain '{name}' has no manage save image; removal skipped")
        return
    with failing(f"Failed to remove managed save image for domain '{name}'"):
        session.call("domain_managed_save_remove", domain, 0)
    session.say(f"Removed managedsave image for domain '{name}'")


def managedsave_define(session: Session, args: Args) -> None:
    """virDomainManagedSaveDefineXML."""
    flags = _run_flags(args, _RUN_FLAGS)
    text = read_text(args.required("xml"))
    name = args.required("domain")
    domain = session.domain(name)
    with failing(f"Failed to update {name} XML configuration"):
        session.call("domain_managed_save_define_xml", domain, text, flags)
    session.say(f"Managed save state file of domain '{name}' updated.\n")


def _secure(args: Args) -> int:
    return c.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE if args.flag("security-info") else 0


def managedsave_dumpxml(session: Session, args: Args) -> Output:
    """virDomainManagedSaveGetXMLDesc."""
    domain = session.domain(args.required("domain"))
    return document(args, session.call("domain_managed_save_get_xml_desc", domain, _secure(args)))


def managedsave_edit(session: Session, args: Args) -> None:
    """virDomainManagedSaveDefineXML, of what an editor made of the document in a saved image."""
    from virtd.shell import editing

    flags = _run_flags(args, _RUN_FLAGS)
    domain = session.domain(args.required("domain"))
    secure = c.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    editing.edit(
        session,
        lambda: str(session.call("domain_managed_save_get_xml_desc", domain, secure)),
        lambda text: session.call("domain_managed_save_define_xml", domain, text, flags),
        f"Managed save image of domain '{domain.name}' XML configuration not changed.",
        f"Managed save image of Domain '{domain.name}' XML configuration edited.",
    )


def image_define(session: Session, args: Args) -> None:
    """virDomainSaveImageDefineXML."""
    flags = _run_flags(args, _RUN_FLAGS)
    path = args.required("file")
    text = read_text(args.required("xml"))
    with failing(f"Failed to update {path}"):
        session.call("domain_save_image_define_xml", path, text, flags)
    session.say(f"State file {path} updated.\n")


def image_dumpxml(session: Session, args: Args) -> Output:
    """virDomainSaveImageGetXMLDesc."""
    return document(args, session.call("domain_save_image_get_xml_desc", args.required("file"), _secure(args)))


def image_edit(session: Session, args: Args) -> None:
    """virDomainSaveImageDefineXML, of what an editor made of the document in a saved image."""
    from virtd.shell import editing

    flags = _run_flags(args, _RUN_FLAGS)
    path = args.required("file")
    secure = c.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    editing.edit(
        session,
        lambda: str(session.call("domain_save_image_get_xml_desc", path, secure)),
        lambda text: session.call("domain_save_image_define_xml", path, text, flags),
        f"Saved image {path} XML configuration not changed.",
        f"State file {path} edited.",
    )


_XPATH = "[--security-info] [--xpath =<string>] [--wrap]"

COMMANDS = (
    Command(
        "dump",
        "<domain> <file> [--live] [--crash] [--bypass-cache] [--reset] [--verbose] [--memory-only] [--format <string>]",
        "write a guest's memory to a file, to be looked at",
        dump,
        kinds={"format": "dump-format"},
    ),
    Command(
        "managedsave",
        "<domain> [--bypass-cache] [--running] [--paused] [--verbose]",
        "save a guest's state, from which it is started again",
        managedsave,
    ),
    Command(
        "managedsave-define",
        "<domain> <xml> [--running] [--paused]",
        "replace the XML in a guest's saved state",
        managedsave_define,
    ),
    Command("managedsave-dumpxml", f"<domain> {_XPATH}", "show the XML in a guest's saved state", managedsave_dumpxml),
    Command(
        "managedsave-edit",
        "<domain> [--running] [--paused]",
        "change the XML in a guest's saved state in an editor",
        managedsave_edit,
    ),
    Command("managedsave-remove", "<domain>", "throw a guest's saved state away", managedsave_remove),
    Command(
        "restore",
        "<file> [--bypass-cache] [--xml <string>] [--running] [--paused] [--reset-nvram]",
        "start a guest from a file that its state was saved to",
        restore,
    ),
    Command(
        "save",
        "<domain> <file> [--bypass-cache] [--xml <string>] [--running] [--paused] [--verbose]",
        "save a guest's state to a file",
        save,
    ),
    Command(
        "save-image-define",
        "<file> <xml> [--running] [--paused]",
        "replace the XML in a file with a saved state",
        image_define,
    ),
    Command("save-image-dumpxml", f"<file> {_XPATH}", "show the XML in a file with a saved state", image_dumpxml),
    Command(
        "save-image-edit",
        "<file> [--running] [--paused]",
        "change the XML in a file with a saved state in an editor",
        image_edit,
    ),
)

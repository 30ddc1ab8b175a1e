"""Backups of running guests' disks."""

from virtd import constants as c
from virtd.shell.acts import document
from virtd.shell.command import Args, Command
from virtd.shell.output import Output
from virtd.shell.session import Session, read_text


def begin(session: Session, args: Args) -> None:
    """virDomainBackupBegin."""
    domain = session.domain(args.required("domain"))
    backup, checkpoint = args.text("backupxml"), args.text("checkpointxml")
    flags = c.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL if args.flag("reuse-external") else 0
    backup_xml = "<domainbackup/>" if backup is None else read_text(backup)
    checkpoint_xml = None if checkpoint is None else read_text(checkpoint)
    session.call("domain_backup_begin", domain, backup_xml, checkpoint_xml, flags)
    session.say("Backup started\n")


def dumpxml(session: Session, args: Args) -> Output:
    """virDomainBackupGetXMLDesc."""
    domain = session.domain(args.required("domain"))
    return document(args, session.call("domain_backup_get_xml_desc", domain, 0))


COMMANDS = (
    Command(
        "backup-begin",
        "<domain> [--backupxml <string>] [--checkpointxml <string>] [--reuse-external]",
        "start a backup of a running guest's disks",
        begin,
        kinds={"backupxml": "path", "checkpointxml": "path"},
    ),
    Command(
        "backup-dumpxml", "<domain> [--xpath =<string>] [--wrap]", "show the XML of a backup that goes on", dumpxml
    ),
)

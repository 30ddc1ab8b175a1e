"""The end of a guest's definition, and if the user wishes of its volumes."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import xmltext
from virtd.shell.command import Args, Command
from virtd.shell.commands.monitor import source_of
from virtd.shell.failure import Failure, failing
from virtd.shell.session import Session
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = {
    "managed-save": c.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE,
    "snapshots-metadata": c.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA,
    "checkpoints-metadata": c.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA,
    "nvram": c.VIR_DOMAIN_UNDEFINE_NVRAM,
    "keep-nvram": c.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM,
    "tpm": c.VIR_DOMAIN_UNDEFINE_TPM,
    "keep-tpm": c.VIR_DOMAIN_UNDEFINE_KEEP_TPM,
}


class _Volume(NamedTuple):
    """A volume that is to go with the definition."""

    target: str
    source: str
    volume: Any


def undefine(session: Session, args: Args) -> None:
    """virDomainUndefineFlags, and virStorageVolDelete of the volumes that are to go, too."""
    for one, other in (("nvram", "keep-nvram"), ("tpm", "keep-tpm")):
        args.exclusive(one, other)
    if args.flag("remove-all-storage") and args.text("storage") is not None:
        raise Failure("Specified both --storage and --remove-all-storage")
    every = args.flag("remove-all-storage")
    args.requires("delete-storage-volume-snapshots", "remove-all-storage")
    if args.flag("wipe-storage") and not every and args.text("storage") is None:
        raise Failure("'--wipe-storage' requires '--storage <string>' or '--remove-all-storage'")
    name = args.required("domain")
    domain = session.domain(name)
    flags = args.flags(_FLAGS)
    running = session.call("domain_is_active", domain)
    removing = every or args.text("storage") is not None
    if running and removing:
        raise Failure("Storage volume deletion is supported only on stopped domains")
    if not running:
        _check(session, args, domain)
    volumes = _volumes(session, args, domain) if removing else []
    with failing(f"Failed to undefine domain '{name}'"):
        session.call("domain_undefine_flags", domain, flags)
    session.say(f"Domain '{name}' has been undefined\n")
    _remove(session, args, volumes)


def _check(session: Session, args: Args, domain: Any) -> None:
    """Refuse to undefine a guest of which something would be left, unless the user has said that it may go."""
    with failing("Failed to check for domain managed save image"):
        saved = _number(session, "domain_has_managed_save_image", domain)
    if saved and not args.flag("managed-save"):
        raise Failure("Refusing to undefine while domain managed save image exists")
    snapshots = _number(session, "domain_snapshot_num", domain)
    if snapshots and not args.flag("snapshots-metadata"):
        raise Failure(f"Refusing to undefine while {snapshots} snapshots exist")


def _number(session: Session, procedure: str, domain: Any) -> int:
    try:
        return int(session.call(procedure, domain, 0))
    except VirtError as error:
        if error.code != c.VIR_ERR_NO_SUPPORT:
            raise
        return 0  # what nobody can make, nobody has


def _volumes(session: Session, args: Args, domain: Any) -> list[_Volume]:
    """The volumes that --storage names, or all of the guest's disks that are volumes of pools."""
    root = xmltext.parse(session.call("domain_get_xml_desc", domain, 0))
    wanted = [one for one in (args.text("storage") or "").split(",") if one]
    found = []
    for disk in root.iterfind("devices/disk"):
        target, source = xmltext.attribute(disk, "target", "dev") or "", source_of(disk)
        if wanted:
            if target not in wanted and source not in wanted:
                continue
            wanted = [one for one in wanted if one not in (target, source)]
        elif source is None or disk.get("device") not in ("disk", None) or disk.find("readonly") is not None:
            continue
        volume = None if source is None else _volume(session, disk, target, source)
        if volume is not None:
            found.append(_Volume(target, source or "", volume))
    for one in wanted:
        raise Failure(f"Volume '{one}' was not found in domain's definition.\n")
    return found


def _volume(session: Session, disk: Any, target: str, source: str) -> Any:
    """The volume that a disk is; None, and said, if it is none."""
    pool = xmltext.attribute(disk, "source", "pool")
    try:
        if pool is None:
            return session.call("storage_vol_lookup_by_path", source)
        found = session.call("storage_pool_lookup_by_name", pool)
        return session.call("storage_vol_lookup_by_name", found, source)
    except VirtError:
        if pool is not None:
            session.complain(f"Storage pool '{pool}' for volume '{target}' not found.")
        else:
            session.complain(f"Storage volume '{target}'({source}) is not managed by libvirt. Remove it manually.\n")
        return None


def _remove(session: Session, args: Args, volumes: list[_Volume]) -> None:
    """Delete volumes; a failure does not keep the others."""
    flags = c.VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS if args.flag("delete-storage-volume-snapshots") else 0
    failed = False
    for target, source, volume in volumes:
        if args.flag("wipe-storage"):
            session.write(f"Wiping volume '{target}'({source}) ... ")
            try:
                session.call("storage_vol_wipe", volume, 0)
            except VirtError as error:
                session.complain("Failed! Volume not removed.")
                session.complain(error.message)
                failed = True
                continue
            session.write("Done.\n")
        try:
            session.call("storage_vol_delete", volume, flags)
        except VirtError as error:
            session.complain(f"Failed to remove storage volume '{target}'({source})")
            session.complain(error.message)
            failed = True
            continue
        session.say(f"Volume '{target}'({source}) removed.\n")
    if failed:
        raise Failure


COMMANDS = (
    Command(
        "undefine",
        "<domain> [--managed-save] [--storage <string>] [--remove-all-storage] [--delete-storage-volume-snapshots] "
        "[--wipe-storage] [--snapshots-metadata] [--checkpoints-metadata] [--nvram] [--keep-nvram] [--tpm] "
        "[--keep-tpm]",
        "remove the definition of a guest",
        undefine,
        kinds={"storage": "disk"},
        aliases={"delete-snapshots": ("delete-storage-volume-snapshots", "")},
    ),
)

"""Which command is in which module, and in which group the help shows it.

Literal, so that a command costs the import of its own module only. A test holds it against the modules.
"""

from virtd.shell.command import Command
from virtd.tuples import NamedTuple


class Group(NamedTuple):
    """A group of commands.

    Attributes:
        keyword: what `help` takes.
        title: what it prints above them.
        modules: names of the commands, in one text, by their module below virtd.shell.commands.
    """

    keyword: str
    title: str
    modules: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The names of its commands, sorted."""
        return sorted(name for text in self.modules.values() for name in text.split())


GROUPS = (
    Group(
        "domain",
        "Domain Management",
        {
            "lifecycle": "autostart create define destroy dompmsuspend dompmwakeup domrename inject-nmi reboot reset "
            "resume send-key send-process-signal set-lifecycle-action shutdown start suspend",
            "undefining": "undefine",
            "describe": "desc domdisplay domid domname domuuid domxml-from-native domxml-to-native dumpxml edit "
            "metadata ttyconsole vncdisplay",
            "screen": "console screenshot",
            "devices": "attach-device detach-device detach-device-alias domif-setlink update-device "
            "update-memory-device",
            "attach": "attach-disk attach-interface change-media detach-disk detach-interface",
            "vcpus": "cpu-stats emulatorpin guestvcpus iothreadadd iothreaddel iothreadinfo iothreadpin iothreadset "
            "setvcpu setvcpus vcpucount vcpuinfo vcpupin",
            "tuning": "blkdeviotune blkiotune domblkthreshold domdirtyrate-calc domiftune memtune numatune perf "
            "schedinfo setmaxmem setmem",
            "blockjobs": "blockcommit blockcopy blockjob blockpull blockresize",
            "saving": "dump managedsave managedsave-define managedsave-dumpxml managedsave-edit managedsave-remove "
            "restore save save-image-define save-image-dumpxml save-image-edit",
            "jobs": "domjobabort domjobinfo migrate migrate-compcache migrate-getmaxdowntime migrate-getspeed "
            "migrate-postcopy migrate-setmaxdowntime migrate-setspeed",
            "agent": "domfsfreeze domfsinfo domfsthaw domfstrim domhostname get-user-sshkeys guest-agent-timeout "
            "guestinfo set-user-password set-user-sshkeys",
            "passthrough": "dom-fd-associate domlaunchsecinfo domsetlaunchsecstate lxc-enter-namespace "
            "qemu-agent-command qemu-attach qemu-monitor-command qemu-monitor-event",
        },
    ),
    Group(
        "monitor",
        "Domain Monitoring",
        {
            "listing": "dominfo domstate list",
            "monitor": "domblkerror domblkinfo domblklist domblkstat domcontrol domif-getlink domifaddr domiflist "
            "domifstat dommemstat domtime",
            "statistics": "domstats top",
        },
    ),
    Group("events", "Domain Events", {"events": "event"}),
    Group(
        "host",
        "Host and Hypervisor",
        {
            "host": "allocpages capabilities freecell freepages hostname node-memory-tune nodecpumap nodecpustats "
            "nodeinfo nodememstats nodesevinfo nodesuspend sysinfo uri version",
            "cpus": "cpu-baseline cpu-compare cpu-models domcapabilities hypervisor-cpu-baseline "
            "hypervisor-cpu-compare maxvcpus",
        },
    ),
    Group(
        "checkpoint",
        "Checkpoint",
        {
            "checkpoint": "checkpoint-create checkpoint-create-as checkpoint-delete checkpoint-dumpxml "
            "checkpoint-edit checkpoint-info checkpoint-list checkpoint-parent"
        },
    ),
    Group(
        "interface",
        "Interface",
        {
            "interface": "iface-begin iface-bridge iface-commit iface-define iface-destroy iface-dumpxml iface-edit "
            "iface-list iface-mac iface-name iface-rollback iface-start iface-unbridge iface-undefine"
        },
    ),
    Group(
        "filter",
        "Network Filter",
        {
            "nwfilter": "nwfilter-binding-create nwfilter-binding-delete nwfilter-binding-dumpxml "
            "nwfilter-binding-list nwfilter-define nwfilter-dumpxml nwfilter-edit nwfilter-list nwfilter-undefine"
        },
    ),
    Group(
        "network",
        "Networking",
        {
            "network": "net-autostart net-create net-define net-destroy net-dhcp-leases net-doctor net-dumpxml "
            "net-edit net-info net-list net-name net-port-create net-port-delete net-port-dumpxml net-port-list "
            "net-start net-undefine net-update net-uuid",
            "events": "net-event",
        },
    ),
    Group(
        "nodedev",
        "Node Device",
        {
            "nodedev": "nodedev-autostart nodedev-create nodedev-define nodedev-destroy nodedev-detach "
            "nodedev-dumpxml nodedev-info nodedev-list nodedev-reattach nodedev-reset nodedev-start nodedev-undefine",
            "events": "nodedev-event",
        },
    ),
    Group(
        "secret",
        "Secret",
        {
            "secret": "secret-define secret-dumpxml secret-get-value secret-list secret-set-value secret-undefine",
            "events": "secret-event",
        },
    ),
    Group(
        "snapshot",
        "Snapshot",
        {
            "snapshot": "snapshot-create snapshot-create-as snapshot-current snapshot-delete snapshot-dumpxml "
            "snapshot-edit snapshot-info snapshot-parent snapshot-revert",
            "snapshotlist": "snapshot-list",
        },
    ),
    Group("backup", "Backup", {"backup": "backup-begin backup-dumpxml"}),
    Group(
        "pool",
        "Storage Pool",
        {
            "pool": "pool-autostart pool-build pool-capabilities pool-create pool-define pool-delete pool-destroy "
            "pool-dumpxml pool-edit pool-info pool-list pool-name pool-refresh pool-start pool-undefine pool-uuid",
            "poolmaking": "find-storage-pool-sources find-storage-pool-sources-as pool-create-as pool-define-as",
            "events": "pool-event",
        },
    ),
    Group(
        "volume",
        "Storage Volume",
        {
            "volume": "vol-clone vol-create vol-create-as vol-create-from vol-delete vol-dumpxml vol-info vol-key "
            "vol-list vol-name vol-path vol-pool vol-resize vol-wipe",
            "transfer": "vol-download vol-upload",
        },
    ),
    Group("virsh", "Virsh itself", {"itself": "cd complete connect echo exit help pwd quit"}),
)

ALIASES = {"nodedev-dettach": "nodedev-detach", "?": "help"}

_MODULES = {name: module for group in GROUPS for module, names in group.modules.items() for name in names.split()}


def find(name: str) -> Command | None:
    """The command of a name; None if there is none."""
    name = ALIASES.get(name, name)
    module = _MODULES.get(name)
    return None if module is None else commands(module)[name]


def names() -> list[str]:
    """The names of all commands."""
    return sorted(_MODULES)


def commands(module: str) -> dict[str, Command]:
    """The commands that a module declares, by name."""
    loaded = __import__(f"virtd.shell.commands.{module}", fromlist=["COMMANDS"])
    return {command.name: command for command in loaded.COMMANDS}

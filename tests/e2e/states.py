"""What calls about one guest lead to in each state of the guest, when two clients make each at the same time.

python3 -m tests.e2e.states URI >tests/e2e/expected/states.json

asks a server (libvirtd 9.0.0, when the file was written) and prints {state: {call: [answer, answer]}}, sorted; an
answer is an error's code and text, or null. The calls are made over the wire, so that no library of the client's checks
anything first.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.e2e.flags import connected
from tests.guests.bootsector import write_boot_disk
from virtd import constants as c
from virtd.drivers import typed
from virtd.drivers.base import Connection
from virtd.errors import VirtError
from virtd.protocol.programs import METHODS
from virtd.protocol.records import Domain

STATES: Final = ("off", "running", "paused")
NAME: Final = "states"
MAC: Final = "52:54:00:00:00:01"
LIVE, CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
XML: Final = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu>
  <iothreads>1</iothreads><os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <devices><disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/></disk>
    <interface type='user'><mac address='{mac}'/></interface><serial type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices></domain>"""
_POLL = [typed.unsigned_long("poll_max_ns", 1000)]
_POOL = [typed.integer("thread_pool_max", 8)]
_IOPS = [typed.unsigned_long("total_iops_sec", 1000)]
_PERF = [typed.boolean("cmt", False)]
_ARGUMENTS: dict[str, tuple[tuple[Any, ...], ...]] = {
    # What is read without QEMU.
    **dict.fromkeys(
        (
            "domain_get_info",
            "domain_is_active",
            "domain_is_persistent",
            "domain_is_updated",
            "domain_get_os_type",
            "domain_get_max_memory",
            "domain_get_max_vcpus",
            "domain_get_autostart",
            "domain_get_job_info",
            "domain_abort_job",
        ),
        ((),),
    ),
    **dict.fromkeys(
        (
            "domain_get_state",
            "domain_get_xml_desc",
            "domain_get_control_info",
            "domain_get_messages",
            "domain_get_perf_events",
            "domain_get_iothread_info",
            "domain_has_managed_save_image",
            "domain_snapshot_num",
            "domain_get_launch_security_info",
            "domain_migrate_get_max_downtime",
            "domain_get_time",
            "domain_get_fsinfo",
            "domain_get_guest_vcpus",
            "domain_pm_wakeup",
            "domain_inject_nmi",
        ),
        ((0,),),
    ),
    "domain_get_vcpus_flags": ((0,), (LIVE,), (CONFIG,), (c.VIR_DOMAIN_VCPU_GUEST,)),
    "domain_get_job_stats": ((0,), (c.VIR_DOMAIN_JOB_STATS_COMPLETED,)),
    "domain_get_vcpus": ((2, 1),),
    "domain_get_vcpu_pin_info": ((2, 1, 0),),
    "domain_get_emulator_pin_info": ((1, 0),),
    "domain_get_metadata": ((c.VIR_DOMAIN_METADATA_TITLE, None, 0),),
    "domain_get_cpu_stats": ((0, -1, 1, 0),),
    "domain_get_block_io_tune": (("vda", 0, 0), ("vdx", 20, 0)),
    "domain_get_numa_parameters": ((4, 0),),
    "domain_get_interface_parameters": ((MAC, 8, 0), ("nope", 8, 0)),
    "domain_interface_stats": (("nope",),),
    "domain_interface_addresses": ((c.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0), (9, 0)),
    # What QEMU or the images tell.
    "domain_block_stats": (("vda",), ("vdx",)),
    "domain_block_stats_flags": (("vda", 8, 0),),
    "domain_get_block_info": (("vda", 0), ("vdx", 0)),
    "domain_get_disk_errors": ((8, 0),),
    "domain_block_peek": (("vda", 0, 512, 0),),
    "domain_memory_peek": ((0, 64, c.VIR_MEMORY_PHYSICAL),),
    "domain_memory_stats": ((16, 0),),
    # What the agent is asked.
    "domain_get_hostname": ((c.VIR_DOMAIN_GET_HOSTNAME_AGENT,),),
    "domain_set_time": ((1, 0, 0),),
    "domain_fsfreeze": (([], 0),),
    "domain_fsthaw": (([], 0),),
    "domain_fstrim": ((None, 0, 0),),
    "domain_set_user_password": (("root", "x", 0),),
    "domain_set_guest_vcpus": (("0", 1, 0),),
    "domain_get_guest_info": ((0, 0),),
    "domain_authorized_ssh_keys_get": (("root", 0),),
    "domain_pm_suspend_for_duration": ((c.VIR_NODE_SUSPEND_TARGET_MEM, 0, 0),),
    "domain_agent_set_response_timeout": ((5, 0),),
    "qemu_domain_agent_command": (('{"execute":"guest-ping"}', -2, 0),),
    # What changes something.
    "qemu_domain_monitor_command": (('{"execute":"query-status"}', 0), ("info status", 1)),
    "domain_pin_vcpu": ((0, b"\1"),),
    "domain_pin_vcpu_flags": ((0, b"\1", CONFIG), (9, b"\1", 0)),
    "domain_pin_emulator": ((b"\1", 0),),
    "domain_pin_iothread": ((1, b"\1", 0), (9, b"\1", 0)),
    "domain_set_memory": ((16384,),),
    "domain_set_memory_flags": ((16384, CONFIG), (99999, 0)),
    "domain_set_max_memory": ((32768,),),
    "domain_set_memory_stats_period": ((1, 0),),
    "domain_set_vcpus": ((1,), (9,)),
    "domain_set_vcpus_flags": ((1, CONFIG),),
    "domain_add_iothread": ((7, 0),),
    "domain_set_iothread_params": ((1, _POLL, LIVE), (1, _POOL, 0)),
    "domain_del_iothread": ((7, 0),),
    "domain_set_block_io_tune": (("vda", _IOPS, 0), ("vdx", _IOPS, 0)),
    "domain_block_resize": (("vda", 1024, 0),),
    "domain_set_block_threshold": (("vda", 4096, 0),),
    "domain_set_perf_events": ((_PERF, 0),),
    "domain_set_lifecycle_action": ((c.VIR_DOMAIN_LIFECYCLE_POWEROFF, c.VIR_DOMAIN_LIFECYCLE_ACTION_DESTROY, 0),),
    "domain_set_metadata": ((c.VIR_DOMAIN_METADATA_TITLE, "x", None, None, 0),),
    "domain_set_autostart": ((1,), (0,)),
    "domain_send_key": ((0, 0, [30], 0),),
    "domain_start_dirty_rate_calc": ((1, 0),),
    "domain_set_launch_security_state": (([], 0),),
    # … its state last, and back again.
    "domain_reset": ((0,),),
    "domain_shutdown_flags": ((c.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,),),
    "domain_suspend": ((),),
    "domain_resume": ((),),
}  # fmt: skip
CALLS: Final = [(name, arguments) for name, all_arguments in _ARGUMENTS.items() for arguments in all_arguments]
Answer = list[Any] | None


@contextmanager
def guest(connection: Connection, state: str) -> Iterator[Domain]:
    """A guest in a state; it is gone afterwards."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o711)
        disk = write_boot_disk(Path(directory) / "disk.img", then="serve")
        disk.chmod(0o666)
        xml = XML.format(name=f"{NAME}-{state}", disk=disk, mac=MAC)
        domain: Domain = connection.require("domain_define_xml", "")(xml)
        try:
            if state != "off":
                flags = c.VIR_DOMAIN_START_PAUSED if state == "paused" else 0
                domain = connection.require("domain_create_with_flags", "")(domain, flags)
            yield domain
        finally:
            if state != "off":
                connection.require("domain_destroy", "")(domain)
            connection.require("domain_undefine", "")(domain)


def start(connection: Connection, domain: Domain, name: str, arguments: tuple[Any, ...]) -> int:
    """Make a call, whose answer is fetched later; returns its serial number."""
    serial: int = connection.drivers[0].client.start(METHODS[name], (domain, *arguments))  # type: ignore[attr-defined]
    return serial


def answer(connection: Connection, serial: int) -> Answer:
    """What a call led to."""
    try:
        connection.drivers[0].client.result(serial)  # type: ignore[attr-defined]
    except VirtError as error:
        return [error.code, error.message]
    return None


def ask(connections: list[Connection], domain: Domain, name: str, arguments: tuple[Any, ...]) -> list[Answer]:
    """What a call leads to that several clients make at the same time."""
    serials = [start(connection, domain, name, arguments) for connection in connections]
    answers = [answer(connection, serial) for connection, serial in zip(connections, serials, strict=True)]
    return sorted(answers, key=lambda one: (one is not None, one))


def title(name: str, arguments: tuple[Any, ...]) -> str:
    """How a call is called."""
    plain = [[one.field for one in value] if isinstance(value, list) and value and not isinstance(value[0], int)
             else value for value in arguments]  # fmt: skip
    return f"{name}({', '.join(map(repr, plain))})"


def main(uri: str) -> None:
    with connected(uri) as first, connected(uri) as second:
        found = {}
        for state in STATES:
            with guest(first, state) as domain:
                found[state] = {title(*call): ask([first, second], domain, *call) for call in CALLS}
    print("{")
    for number, (state, answers) in enumerate(found.items()):
        lines = [f"{json.dumps(name)}: {json.dumps(both)}" for name, both in answers.items()]
        print(f'"{state}": {{', ",\n".join(lines), "}" if number == len(found) - 1 else "},", sep="\n")
    print("}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The operations that faults are put into: what has to be there before, and the call.

A call is a procedure's name and its arguments, in which ROOT stands for the instance's directory; KILL QEMU is none of
virtd's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tests.guests.xml import boot_domain
from virtd import constants as c
from virtd.protocol.records import Domain, Network, Secret, StoragePool, StorageVol

Call = tuple[Any, ...]

GUEST = Domain("web1", bytes.fromhex("10000000000000000000000000000001"), -1)
NETWORK = Network("net1", bytes.fromhex("20000000000000000000000000000001"))
POOL = StoragePool("pool1", bytes.fromhex("30000000000000000000000000000001"))
SECRET = Secret(bytes.fromhex("40000000000000000000000000000001"), 0, "")
VOLUME = StorageVol("pool1", "vol1", "ROOT/pool/vol1")
KILL = "KILL QEMU"


def guest_xml(devices: str = "") -> str:
    """The guest that operations are about; the images are the world's."""
    uuid = "10000000-0000-0000-0000-000000000001"
    xml = boot_domain("web1", Path("ROOT/images/a.img"), uuid=uuid, devices=devices)
    return xml.replace("<serial type='pty'/>", "")  # the path of a terminal is another one each time


NETWORK_XML = """<network><name>net1</name><uuid>20000000-0000-0000-0000-000000000001</uuid>
<forward mode='nat'/><bridge name='vb-fault'/><mac address='52:54:00:11:22:33'/>
<ip address='192.168.123.1' netmask='255.255.255.0'><dhcp><range start='192.168.123.2' end='192.168.123.9'/></dhcp></ip>
</network>"""
POOL_XML = """<pool type='dir'><name>pool1</name><uuid>30000000-0000-0000-0000-000000000001</uuid>
<target><path>ROOT/pool</path></target></pool>"""
SECRET_XML = """<secret><uuid>40000000-0000-0000-0000-000000000001</uuid>
<usage type='ceph'><name>s</name></usage></secret>"""
VOLUME_XML = """<volume><name>{}</name><capacity unit='KiB'>64</capacity>
<target><format type='{}'/></target></volume>"""
DISK_XML = """<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='ROOT/images/b.img'/>
<target dev='vdb' bus='virtio'/></disk>"""
CARD_XML = "<interface type='network'><mac address='52:54:00:44:55:66'/><source network='net1'/></interface>"
RNG_XML = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"

_LIVE = c.VIR_DOMAIN_AFFECT_LIVE
_BOTH = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG

# Calls.
DEFINE: Call = ("domain_define_xml_flags", guest_xml(), 0)
UNDEFINE: Call = ("domain_undefine_flags", GUEST, 0)
AUTOSTART: Call = ("domain_set_autostart", GUEST, 1)
START: Call = ("domain_create_with_flags", GUEST, 0)
DESTROY: Call = ("domain_destroy_flags", GUEST, 0)
SUSPEND: Call = ("domain_suspend", GUEST)
TITLE: Call = ("domain_set_metadata", GUEST, c.VIR_DOMAIN_METADATA_TITLE, "a title", None, None, _BOTH)
DEFINE_NETWORK: Call = ("network_define_xml", NETWORK_XML)
UNDEFINE_NETWORK: Call = ("network_undefine", NETWORK)
START_NETWORK: Call = ("network_create", NETWORK)
DEFINE_POOL: Call = ("storage_pool_define_xml", POOL_XML, 0)
UNDEFINE_POOL: Call = ("storage_pool_undefine", POOL)
START_POOL: Call = ("storage_pool_create", POOL, 0)
CREATE_VOLUME: Call = ("storage_vol_create_xml", POOL, VOLUME_XML.format("vol1", "raw"), 0)
DEFINE_SECRET: Call = ("secret_define_xml", SECRET_XML, 0)
UNDEFINE_SECRET: Call = ("secret_undefine", SECRET)
SET_SECRET: Call = ("secret_set_value", SECRET, b"value", 0)

# What has to be there before.
NOTHING: list[Call] = []
DEFINED = [DEFINE]
AUTOSTARTED = [DEFINE, AUTOSTART]
RUNNING = [DEFINE, START]
ON_NETWORK = [DEFINE_NETWORK, START_NETWORK, ("domain_define_xml_flags", guest_xml(CARD_XML), 0)]
POOL_UP = [DEFINE_POOL, START_POOL]
VOLUME_THERE = [*POOL_UP, CREATE_VOLUME]


class Operation(NamedTuple):
    """One operation.

    Attributes:
        name: what it is called in the table of results.
        before: the calls which lead from an empty world to where it can be done.
        call: what it is.
        partly: whether it changes two things (live and persistent configuration, a secret and its value), of which only
            the first may have been done.
    """

    name: str
    before: list[Call]
    call: Call
    partly: bool = False


OPERATIONS = [
    Operation("define a guest", NOTHING, DEFINE),
    Operation("define it anew", DEFINED, ("domain_define_xml_flags", guest_xml(RNG_XML), 0)),
    Operation("undefine", AUTOSTARTED, UNDEFINE),
    Operation("rename", AUTOSTARTED, ("domain_rename", GUEST, "web2", 0)),
    Operation("autostart", DEFINED, AUTOSTART),
    Operation("no autostart", AUTOSTARTED, ("domain_set_autostart", GUEST, 0)),
    Operation("set its title", RUNNING, TITLE, partly=True),
    Operation("start", DEFINED, START),
    # Of a start that is cut short early a port may be left, until anything else is changed.
    Operation("start on a network", ON_NETWORK, START, partly=True),
    Operation("create", NOTHING, ("domain_create_xml", guest_xml(), 0)),
    Operation("destroy", RUNNING, DESTROY),
    Operation("destroy on a network", [*ON_NETWORK, START], DESTROY),
    Operation("QEMU ends by itself", RUNNING, (KILL,)),
    Operation("suspend", RUNNING, SUSPEND),
    Operation("resume", [*RUNNING, SUSPEND], ("domain_resume", GUEST)),
    Operation("attach a disk", RUNNING, ("domain_attach_device_flags", GUEST, DISK_XML, _BOTH), partly=True),
    Operation("attach it live", RUNNING, ("domain_attach_device_flags", GUEST, DISK_XML, _LIVE)),
    Operation("define a network", NOTHING, DEFINE_NETWORK),
    Operation("start a network", [DEFINE_NETWORK], START_NETWORK),
    Operation("destroy a network", [DEFINE_NETWORK, START_NETWORK], ("network_destroy", NETWORK)),
    Operation("undefine a network", [DEFINE_NETWORK, ("network_set_autostart", NETWORK, 1)], UNDEFINE_NETWORK),
    Operation("define a pool", NOTHING, DEFINE_POOL),
    Operation("start a pool", [DEFINE_POOL], START_POOL),
    Operation("destroy a pool", POOL_UP, ("storage_pool_destroy", POOL)),
    Operation("undefine a pool", [DEFINE_POOL, ("storage_pool_set_autostart", POOL, 1)], UNDEFINE_POOL),
    Operation("create a volume", POOL_UP, ("storage_vol_create_xml", POOL, VOLUME_XML.format("vol1", "qcow2"), 0)),
    Operation(
        "clone a volume",
        VOLUME_THERE,
        ("storage_vol_create_xml_from", POOL, VOLUME_XML.format("vol2", "raw"), VOLUME, 0),
    ),
    Operation("resize a volume", VOLUME_THERE, ("storage_vol_resize", VOLUME, 128 << 10, 0)),
    Operation("delete a volume", VOLUME_THERE, ("storage_vol_delete", VOLUME, 0)),
    Operation("define a secret", NOTHING, DEFINE_SECRET),
    Operation("set a secret's value", [DEFINE_SECRET], SET_SECRET),
    Operation("undefine a secret", [DEFINE_SECRET, SET_SECRET], UNDEFINE_SECRET, partly=True),
]

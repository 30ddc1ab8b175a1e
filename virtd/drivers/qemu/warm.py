"""What each process that starts a guest would find out, or make, anew, made before a server forks its first one.

Tables of CPU models, plans of the XML's elements, what is known already of the emulator, the way to the list of users:
all of it is kept by the modules it belongs to, and right without regard to when it was made. Nothing is asked of any
emulator here, nothing written, and no guest is looked at.
"""

import ctypes
from contextlib import suppress

from virtd.conf.cpu import x86map
from virtd.drivers.qemu import stored
from virtd.drivers.qemu.host.capabilities import Capabilities
from virtd.errors import VirtError
from virtd.state.paths import Paths

# As often as it takes the interpreter to specialise what it runs (PEP 659).
TIMES = 10

# What most guests have.
GUEST = """<domain type='kvm'><name>guest</name><uuid>00000000-0000-4000-8000-000000000000</uuid>
<memory unit='KiB'>1048576</memory><currentMemory unit='KiB'>1048576</currentMemory><vcpu placement='static'>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/><apic/></features>
<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
<clock offset='utc'><timer name='rtc' tickpolicy='catchup'/></clock>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/guest'/>
<target dev='vda' bus='virtio'/>
<address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></disk>
<controller type='usb' index='0' model='qemu-xhci'/><controller type='pci' index='0' model='pcie-root'/>
<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/>
<model type='virtio'/></interface>
<serial type='pty'><target type='isa-serial' port='0'><model name='isa-serial'/></target></serial>
<console type='pty'><target type='serial' port='0'/></console>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<input type='mouse' bus='ps2'/><graphics type='vnc' port='-1' autoport='yes'/><audio id='1' type='none'/>
<video><model type='virtio' heads='1' primary='yes'/></video><memballoon model='virtio'/>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>"""


def warm(paths: Paths) -> None:
    """Make it all.

    Args:
        paths: the instance's directories.
    """
    x86map.models()
    x86map.from_qemu(())
    x86map.unmigratable()
    x86map.host_only()
    x86map.without_name_in_qemu()
    here = Capabilities(paths)
    for _ in range(TIMES):
        config = stored.read(GUEST.encode(), here.host(), live=True)
        stored.untouched(stored.write(config).encode())
    here.recall()
    with suppress(VirtError):  # whoever needs it is told
        _ = here.user
    ctypes.CDLL(None, use_errno=True)  # by which QEMU's process gives up what it may do

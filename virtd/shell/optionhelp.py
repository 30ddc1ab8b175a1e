"""What the help says of options. Most mean the same in every command; a command's own comes first.

A line is a name, or several, and the text; "command.option" is of one command only.
"""

_TEXTS = """
abort: end the job
abort-on-error: give up at the first error, rather than go on where that is possible
action: destroy, restart, rename-restart, preserve, coredump-destroy or coredump-restart
active: what is, rather than what may be
active blockcommit.active: commit the image in use, too; the job goes on until it is ended with --pivot
snapshot-list.active: snapshots of a running guest
adapter-name adapter-parent adapter-parent-fabric-wwn: the source's host bus adapter
adapter-parent-wwnn adapter-parent-wwpn adapter-wwnn adapter-wwpn: a world wide name of the source's adapter
add: add to what there is, rather than set it
address: where the disk is plugged in, such as pci:0000.00.11.0
algorithm: zero, nnsa, dod, bsi, gutmann, schneier, pfitzner7, pfitzner33, random or trim
alias: the device's alias
all: all of them
list.all net-list.all pool-list.all iface-list.all nodedev-list.all: active and inactive ones
event.all: events of all kinds
allocate: reserve all of the space at once
allocation: how much to reserve from the beginning, such as 1G
anystats: also of jobs that have failed
arch: a processor architecture, such as x86_64
async: do not wait for the end
qemu-agent-command.async: do not wait for an answer
atomic: all of it or nothing
auth-type: how the source's server asks who one is
auth-username: the name to give there
auto-converge: slow the guest down if the migration does not keep up with it
auto-converge-increment auto-converge-initial: by how much, in percent
autodestroy: the guest ends when this virtsh does
autostart: those started with the machine
backing: of the images below a disk's own, too
backing-vol: a volume of which this one holds only the differences
backing-vol-format: that volume's format
backupxml checkpointxml: a file with the document
balloon: of the memory balloon
bandwidth: the limit in MiB/s
base: the image to end at; the lowest by default
base64: the value in base64; others can see it on the command line
binding: the name of the port's device
block: wait without limit
change-media.block: the medium is a block device
domstats.block: of disks
blockdev: the copy goes to a block device
bridge: the name of the bridge
buf-size: how much may be under way at a time, in bytes
build: make what it lies on first
bypass-cache: past the host's page cache
bytes: sizes in bytes
blockcommit.bytes blockcopy.bytes blockjob.bytes blockpull.bytes: the limit is in bytes/s
cache: none, writethrough, writeback, directsync or unsafe
cap: a capability, or several parted by commas
schedinfo.cap: the most that a processor gets
capacity: the size, such as 10G
cell cellno: the number of a NUMA node
change-protection: nobody may change the guest while it migrates
checkpointname: the name of the checkpoint
checkpoints-metadata: forget the guest's checkpoints, too
children: its children, too
children-only: its children, but not itself
clone: keep the old one under its name
cmd: the command
codeset: linux (the default), xt, atset1, atset2, atset3, os_x, xt_kbd, usb, win32 or qnum
command: what to explain
net-update.command: add-first, add-last (or add), delete or modify
comp-methods: how to compress, parted by commas
comp-mt-dthreads comp-mt-level comp-mt-threads comp-xbzrle-cache: how to compress
completed: of a job that has ended
compressed: compress what is sent again
config: in the definition, from the next start on
domxml-from-native.config: a file with the hypervisor's own configuration
console: go on to the guest's console
copy-storage-all copy-storage-inc: copy the disks, too; all of them, or what differs from a base both hosts have
copy-storage-synchronous-writes: the guest's writes go to both hosts at once
count: how many
cpu: the number of a CPU; all together by default
cpu-total: of the processors together
cpulist: host CPUs, such as 0-3,^2; r for all
guestvcpus.cpulist: the guest's processors, such as 0-3
crash: end the guest after it
current: where the guest is now: running, or in the definition
snapshot-create.current: and make it the current one
snapshot-delete.current snapshot-edit.current snapshot-info.current: the current one
snapshot-parent.current snapshot-revert.current snapshot-list.current: the current one
daemon: of the server, too
delay: seconds a port listens before it forwards
top.delay: seconds between two looks
delete: delete the images that are not needed any more
delete-snapshots: its snapshots, too
delete-storage-volume-snapshots: the volumes' snapshots, too
delta: by so much, rather than to it
descendants: and whatever comes of them
description: a description
dest: the path of the copy
desturi: the connection of the other host
details: more of each
dev device: the device, such as vda
nodedev-info.device nodedev-dumpxml.device nodedev-event.device: the name of the device
nodedev-detach.device nodedev-reattach.device nodedev-reset.device: the name of the device
nodedev-autostart.device nodedev-destroy.device nodedev-start.device nodedev-undefine.device: the name of the device
device-read-bytes-sec device-read-iops-sec device-write-bytes-sec device-write-iops-sec: /dev/x,number,…
device-weights: /dev/x,weight,…
devname: the alias of a console; the first one by default
dir: where to go; home by default
direct: let the hypervisors do it among themselves
dirtyrate: of how fast memory changes
disable: the reverse
perf.disable: counters to stop, parted by commas
disk: of disks
disk-only: of disks, without memory
disks-port disks-uri: where disks are sent to
diskspec: NAME[,snapshot=…][,driver=…][,stype=…][,file=…]
checkpoint-create-as.diskspec: NAME[,checkpoint=…][,bitmap=…]
dname: what the guest is called over there
domain: name, id or UUID of the guest
domid.domain domrename.domain: name or UUID of the guest
domname.domain: id or UUID of the guest
domuuid.domain: name or id of the guest
start.domain: name or UUID of the guest
downtime: how long, in ms
driver: a driver, such as vfio
attach-disk.driver: the hypervisor's driver, such as qemu
duration: for how many seconds
edit: in an editor
eject: take the medium out
emulator emulatorbin: the path of an emulator
enable: do so
perf.enable: counters to start, parted by commas
encrypted: the password is encrypted already
enforce: fail where one of them is not there
ephemeral: those that are forgotten with the server
err: to standard error
error: say which features are missing
event: which kind of event; --list shows them
external: those beside the images
features: name the features of the model, too
file: a file with the document
create.file define.file restore.file: a file with the guest
screenshot.file save.file dump.file: the file to write
vol-upload.file: the file to read
vol-download.file: the file to write
secret-set-value.file: a file with the value
set-user-sshkeys.file: a file with the keys
filesystem: of file systems
finish: end the job when the copy is complete
force: even if it has to be taken from somebody else
change-media.force update-device.force: even if the guest holds on to it
snapshot-revert.force: even if something is lost by it
force-boot: boot, and throw a saved state away
format: a format, such as qcow2
domxml-from-native.format domxml-to-native.format: the hypervisor's format, such as qemu-argv
dump.format: elf, kdump-zlib, kdump-lzo, kdump-snappy or win-dmp
from: where to begin
full: name and address of the interface on every line
graceful: only if QEMU ends by itself when asked
granularity: of the copy, a power of two in bytes
graphicsuri: where viewers are to go
group-name: share the limits with other disks of this name
guest: ask the guest's agent
halt: leave the guest off after it
hard-limit soft-limit swap-hard-limit min-guarantee: a size, in KiB without a unit; -1 for no limit
hmp: the command is one for people
holdtime: how long the keys stay down, in ms
host port initiator: whom to ask
hostname: of the host name
hotpluggable: so that they can be taken out again
human: sizes for people
id: ids only
iothreadadd.id iothreaddel.id iothreadset.id: the number of the thread
inactive: those that do not run
dumpxml.inactive net-dumpxml.inactive pool-dumpxml.inactive iface-dumpxml.inactive: the definition
domblklist.inactive domiflist.inactive: of the definition
inbound outbound: AVERAGE[,PEAK[,BURST[,FLOOR]]] in KiB/s, burst in KiB
include-password: with the password, if there is one
info: show the job
inputpool: the pool of the volume that is copied
insert: put a medium in
interactive: ask for it
interface: name on the host, or MAC address
domstats.interface guestinfo.interface: of network interfaces
iface-name.interface: MAC address of the interface
internal: those in the images
io: native, threads or io_uring
iothread: the number of a thread
domstats.iothread: of I/O threads
keep-completed: leave them for the next one who asks
keep-nvram keep-tpm: keep it
keep-overlay: end the job when it is in step, and stay with the overlay
keep-relative: write paths of images as they are to each other
key: the prefix of the element's name space
keycode: names such as KEY_A, or numbers
leaves: those without children
length: how much, in bytes; all by default
list: show what kinds there are
list-active list-inactive list-persistent list-transient: only those guests
list-running list-paused list-shutoff list-other: only those guests
listen-address: where the other host waits for the guest
live: now, in the guest that runs
dump.live: without stopping the guest
migrate.live: without stopping the guest
snapshot-create.live snapshot-create-as.live: without stopping the guest
loop: go on until the time is up or Ctrl-C
mac: a MAC address
machine: a machine type, such as q35
managed: detach the host's device from its driver, and give it back
managed-save: say which have a saved state
undefine.managed-save: throw the saved state away, too
maximum: what may be, rather than what is
memory: of memory
memory-only: memory and registers, in a form for debuggers
memspec: FILE[,snapshot=no|internal|external]
metadata: those libvirt knows of
checkpoint-delete.metadata snapshot-delete.metadata: forget it, and leave the data
migratable: in a form that other hosts understand
cpu-baseline.migratable hypervisor-cpu-baseline.migratable: without features that keep a guest from migrating
migrate-disks: which disks to copy, parted by commas
migrateuri: where the guest is sent to
minimum: leave free spaces alone that are smaller, in bytes
mode: acpi, agent, initctl, signal or paravirt, or several parted by commas
attach-disk.mode: readonly or shareable
domdirtyrate-calc.mode: page-sampling, dirty-bitmap or dirty-ring
numatune.mode: strict, preferred, interleave or restrictive
model: a model, such as virtio
hypervisor-cpu-baseline.model: the name of a CPU model
mountpoint: where it is mounted; all by default
multifunction: the slot is for several devices
name: names only
connect.name: the URI
dom-fd-associate.name: what to call them
checkpoint-create-as.name snapshot-create-as.name: what to call it
pool-create-as.name pool-define-as.name vol-create-as.name: what to call it
network: name or UUID of the network
new-desc: the new text
new-name newname: the new name
no-autostart: those not started with the machine
no-case: upper and lower case are the same
no-domain: without the guest
no-ephemeral: those that stay
no-leaves: those with children
no-metadata: those libvirt does not know of
snapshot-create.no-metadata snapshot-create-as.no-metadata: libvirt shall not remember it
no-overwrite: only if nothing is there yet
no-private: those whose value can be read
no-start: without starting it
no-stp: without spanning tree protocol
node: the number of its node
nodeset: host nodes, such as 0-1
noseclabel: keep one's own security label
now: the time of this host
nowait: only what is known at once
nvram tpm: remove it, too
nwfilter: name or UUID of the filter
offline: only the definition
offset: where to begin, in bytes
os: of the operating system
overwrite: even if something is there
p2p: let the hosts do it among themselves
pagecount: how many
pagesize: their size, such as 2M
parallel: over several connections
parallel-connections: how many
parent: with the parent of each
parent-index: which one, if there are several parents
pass-fds: numbers of descriptors this process has, parted by commas
password: the password
path: the disk, such as vda or its source
paused: leave the guest paused
percent: in percent, during one second
perf: of performance counters
period: have the guest report every so many seconds
persistent: also in the definition
list.persistent net-list.persistent pool-list.persistent: those with a definition
migrate.persistent: define the guest over there
persistent-xml: a file with what to define over there
physical: how much it takes where it lies
pid: the process id
pivot: end the job, and go on with the copy
plain: as it is, rather than in base64
poll-grow poll-max-ns poll-shrink thread-pool-max thread-pool-min: how the thread waits for work
pool: name or UUID of the pool
net-port-dumpxml.port net-port-delete.port: UUID of the port
postcopy: of post-copy
migrate.postcopy: it may be switched to post-copy
postcopy-after-precopy: switch to post-copy after the first pass
postcopy-bandwidth: the limit after that, in MiB/s
postcopy-resume: go on after a failure
prealloc-metadata: reserve the format's own data from the beginning
pretty: in a form for people
print-xml: show the document, and do nothing
private: those whose value cannot be read
quiesce: have the agent hold the file systems still
raw: as they are
blockjob.raw: as they are
rawio: the guest may send SCSI commands
rawstats: as they are
rdma-pin-all: fix all of the memory first
read-bytes-sec total-bytes-sec write-bytes-sec: a limit in bytes/s
read-bytes-sec-max total-bytes-sec-max write-bytes-sec-max: a limit for bursts in bytes/s
read-bytes-sec-max-length total-bytes-sec-max-length write-bytes-sec-max-length: how long bursts last, in s
read-iops-sec total-iops-sec write-iops-sec: a limit in operations/s
read-iops-sec-max total-iops-sec-max write-iops-sec-max: a limit for bursts in operations/s
read-iops-sec-max-length total-iops-sec-max-length write-iops-sec-max-length: how long bursts last, in s
readonly: read-only
reason: and why
redefine: one that was made before, and is to be known again
redefine-validate: and check it
reflink: share the blocks, where the file system can
regex: the kind is a regular expression
remove: remove it
set-user-sshkeys.remove: remove these keys
remove-all-storage: all its volumes, too
remove-logs: its log, too
rename: and forget the old one
requested-size: its size, in KiB without a unit
reset: reset the guest after it
set-user-sshkeys.reset: remove all keys first
reset-nvram: begin with fresh firmware variables
return-value: only what it returned
reuse-external: the files are there already
roots: those without parents
running: have the guest run
safe: only where nobody else can get in between
screen: the number of the screen
script: a script that connects it
seclabel-restore seclabel-writable: how their security labels are treated
seconds: how long to measure
secret: UUID of the secret
domsetlaunchsecstate.secret: a file with the secret
secret-usage secret-uuid: the secret to give there
secrethdr: a file with the secret's header
section: such as ip-dhcp-host, dns-host or portgroup
security-info: with passwords and the like
serial: the serial number
set: NAME=VALUE
metadata.set: the new element
set-address: where in the guest's memory
shallow: only the uppermost image
shell: quoted for a shell
shm-merge-across-nodes shm-pages-to-scan shm-sleep-millisecs: how the kernel looks for equal pages
shrink: it may become smaller
signame: name or number of the signal
size: the size, in KiB without a unit
migrate-compcache.size: the size in bytes
checkpoint-dumpxml.size: with how much has changed since
size-iops-sec: how large one operation is counted, in bytes
skip-validate: without holding it against the schema
snapshotname: the name of the snapshot
snapshots-metadata: forget the guest's snapshots, too
source: what it is connected to
attach-disk.source change-media.source: a path
domhostname.source domifaddr.source: who is asked: lease, agent or arp
source-dev source-format source-host source-initiator source-name source-path: where the pool comes from
source-host-name source-host-socket source-host-transport source-protocol: a server that has the disk
source-mode: server or client
source-protocol-ver: the version of its protocol
sourcetype: file, block or network
sparse: leave out what is empty
split: parted at commas
srcSpec: a file that says where to look
start: begin with this CPU
state: up or down
domstats.state: of the state
state-other state-paused state-running state-shutoff: those in this state
storage: volumes to remove, too, parted by commas
string: words
subdriver: the image's format
suspend: leave the guest paused over there
sync: from the guest's own hardware clock
synchronous-writes: the guest's writes go to both at once
table: as a table, which is the default
target: what the guest calls it, such as vda
attach-interface.target: what the host calls it
detach-disk.target: what the guest calls it, or its source
dompmsuspend.target nodesuspend.target: mem, disk or hybrid
pool-create-as.target pool-define-as.target: where its volumes are to be found
targetbus: virtio, scsi, sata, ide, usb or fdc
threshold: in bytes
time: seconds since 1970
timeout: seconds to wait
timeout-postcopy timeout-suspend: what to do then
timestamp: with the time
timezone: of the time zone
title: the title, rather than the description
list.title: with their titles
tls: encrypted
tls-destination: the name in the other host's certificate
top: the image to begin with
topological: parents before their children
total: all together only
transient: those without a definition
transient-job: it need not outlive the guest
tree: as a tree
tunnelled: through the servers' own connection
type: a kind
domdisplay.type: vnc, spice, rdp or dbus
maxvcpus.type: kvm, qemu
attach-disk.type: disk, cdrom, floppy or lun
attach-interface.type detach-interface.type: network, bridge, direct, hostdev or vhostuser
set-lifecycle-action.type: poweroff, reboot or crash
undefinesource: remove the definition here
unsafe: even if it may do harm
update: put another medium in
update-cpu: with the CPU as it will be on this host
uri: the element's name space
user: the name of a user
guestinfo.user: of users
uuid: UUIDs only
vol-pool.uuid: its UUID, rather than its name
validate: hold it against the schema first
vcpu: the number of a processor
domstats.vcpu: of each processor
vcpulist: the guest's processors, such as 0-3
verbose: show how far it is
virttype: kvm or qemu
vm: of the hypervisor's own
vol: name, key or path of the volume
vol-name.vol vol-pool.vol: key or path of the volume
wait: wait for the end
weight: a share among others
wipe-storage: overwrite them first
with-checkpoint with-managed-save with-snapshot: those that have one
without-checkpoint without-managed-save without-snapshot: those that have none
wrap: put what is found into one element
wwn: the world wide name
xml: a file with another document
net-update.xml: the element, or a file with it
echo.xml: quoted for XML
xmlfile: a file with the document
xpath: only what this expression finds
zerocopy: without copying memory pages
"""


def _table() -> dict[str, str]:
    found = {}
    for line in _TEXTS.strip().splitlines():
        names, _, text = line.partition(": ")
        for name in names.split():
            found[name] = text
    return found


_texts: dict[str, str] = {}


def find(command: str, option: str) -> str:
    """What the help says of an option of a command."""
    if not _texts:
        _texts.update(_table())
    return _texts.get(f"{command}.{option}") or _texts.get(option, "")

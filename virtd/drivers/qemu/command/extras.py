"""The smaller devices: balloon, random numbers, watchdog, panic, TPM, vsock, IOMMU, shared memory and directories."""

import errno
import fcntl
import os
import struct

from virtd.conf.domain.base import IsaAddress
from virtd.conf.domain.devices import BuiltinBackend, EgdBackend, RandomBackend, Rng, Shmem, Vsock, Watchdog
from virtd.conf.domain.domain import Sev
from virtd.conf.domain.filesystem import Filesystem
from virtd.conf.domain.tpm import EmulatorTpm, ExternalTpm, PassthroughTpm, Tpm
from virtd.drivers.qemu.command import virtio
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.backends import add_backend
from virtd.drivers.qemu.command.line import Line, Properties, alias, internal, on_off, unsupported
from virtd.state import files

_WATCHDOGS = ("i6300esb", "ib700")
# What libvirt carries out itself when the watchdog rings: QEMU only stops the guest.
_WATCHDOG_ACTIONS = {"dump": "pause"}
_DEFAULT_RANDOM = "/dev/random"
_9P_SECURITY = {None: "none", "passthrough": "passthrough", "mapped": "mapped", "squash": "none"}
# linux/vhost.h
_VSOCK_SET_GUEST_CID = 0x4008AF60
_FIRST_CID = 3


def add_balloon(line: Line) -> None:
    """Add the memory balloon, and let it take what the guest is not to have yet."""
    balloon = line.config.memballoon
    if balloon is None or balloon.model == "none":
        return
    if not (balloon.model or "").startswith("virtio"):
        raise unsupported(f"Memory balloon device type '{balloon.model}' is not supported by this version of qemu")
    line.device(
        virtio.driver(line, "virtio-balloon", balloon.model),
        **virtio.options(balloon.driver.virtio if balloon.driver is not None else None),
        id=alias(balloon.info),
        **{"deflate-on-oom": balloon.autodeflate, "free-page-reporting": balloon.free_page_reporting},
        **place(line, balloon.info),
    )
    config = line.config
    current = config.current_memory or 0
    if current and current < (config.memory or 0):
        line.command.commands.append(("balloon", {"value": current * 1024}))
    if balloon.stats_period:
        path = f"/machine/peripheral/{alias(balloon.info)}"
        arguments: Properties = {
            "path": path,
            "property": "guest-stats-polling-interval",
            "value": balloon.stats_period,
        }
        line.command.commands.append(("qom-set", arguments))


def add_rngs(line: Line) -> None:
    """Add random number generators."""
    for rng in line.config.rngs:
        add_rng(line, rng)


def add_watchdogs(line: Line) -> None:
    """Add the watchdog."""
    if len(line.config.watchdogs) > 1:
        raise internal("only a single watchdog device is supported")
    for watchdog in line.config.watchdogs:
        add_watchdog(line, watchdog)


def add_watchdog(line: Line, watchdog: Watchdog) -> None:
    """Add one watchdog."""
    model = watchdog.model or ""
    if model not in _WATCHDOGS:
        raise unsupported(f"unknown watchdog model '{model}'")
    line.need(model, f"watchdog model '{model}'")
    line.device(model, id=alias(watchdog.info), **place(line, watchdog.info))
    action = watchdog.action or "reset"
    line.add("watchdog-action", _WATCHDOG_ACTIONS.get(action, action))


def add_panics(line: Line) -> None:
    """Add how the guest reports a crash. That of Hyper-V is a matter of the CPU."""
    for panic in line.config.panics:
        if panic.model in ("isa", None):
            line.need("pvpanic", "the QEMU binary does not support the panic device: panic model 'isa'")
            address = panic.info.address
            line.device("pvpanic", ioport=address.iobase if isinstance(address, IsaAddress) else None)
        elif panic.model != "hyperv":
            raise unsupported(f"unknown panic model '{panic.model}'")


def add_tpms(line: Line) -> None:
    """Add trusted platform modules."""
    for tpm in line.config.tpms:
        _tpm(line, tpm)


def add_vsocks(line: Line) -> None:
    """Add the socket device between guest and host, of which there is one at most."""
    if line.config.vsock is not None:
        add_vsock(line, line.config.vsock)


def add_vsock(line: Line, vsock: Vsock) -> None:
    """Add a socket device between guest and host."""
    line.device(
        virtio.driver(line, "vhost-vsock", vsock.model),
        **virtio.options(vsock.driver.virtio if vsock.driver is not None else None),
        id=alias(vsock.info),
        **_vsock(line, vsock),
        **place(line, vsock.info),
    )


def add_iommu(line: Line) -> None:
    """Add the guest's IOMMU; it has to come before what it serves."""
    iommu = line.config.iommu
    if iommu is None:
        return
    if iommu.model == "virtio":
        line.need("virtio-iommu-pci", "IOMMU device: 'virtio'")
        line.device("virtio-iommu-pci", id=alias(iommu.info), **place(line, iommu.info))
        return
    if iommu.model != "intel":
        raise unsupported(f"IOMMU device: '{iommu.model}' is not supported")
    line.need("intel-iommu", "IOMMU device: 'intel'")
    line.device(
        "intel-iommu",
        id=alias(iommu.info),
        intremap=on_off(iommu.intremap),
        **{"caching-mode": iommu.caching_mode, "device-iotlb": iommu.iotlb, "aw-bits": iommu.aw_bits},
        eim=on_off(iommu.eim),
    )


def add_shmems(line: Line) -> None:
    """Add memory that is shared with other guests."""
    for shmem in line.config.shmems:
        add_shmem(line, shmem)


def add_filesystems(line: Line) -> None:
    """Add directories of the host."""
    for filesystem in line.config.filesystems:
        add_filesystem(line, filesystem)


def add_launch_security(line: Line) -> None:
    """Add AMD's encryption of the guest's memory; where its bits lie, the host says if the guest does not."""
    said = line.config.launch_security
    if not isinstance(said, Sev):
        return
    if line.binary.sev is None or not line.binary.has("sev-guest"):
        raise unsupported("SEV launch security is not supported with this QEMU binary")
    host = line.binary.sev
    line.object(
        "sev-guest",
        id="lsec0",
        cbitpos=said.cbitpos if said.cbitpos is not None else host.get("cbitpos"),
        policy=said.policy,
        **{
            "reduced-phys-bits": said.reduced_bits if said.reduced_bits is not None else host.get("reduced-phys-bits"),
            "dh-cert-file": _blob(line, "dh_cert", said.dh_cert),
            "session-file": _blob(line, "session", said.session),
            "kernel-hashes": said.kernel_hashes,
        },
    )


def _blob(line: Line, name: str, content: str | None) -> str | None:
    """A file with what the guest's owner has sent along."""
    if content is None:
        return None
    path = f"{line.setup.private}/{name}.base64"
    if line.setup.live:
        files.replace(path, content.encode(), durable=False)
        line.uses(path)
    return path


def add_genid(line: Line) -> None:
    """Add the device that tells the guest that it has been copied."""
    if line.config.genid is not None:
        line.need("vmgenid", "genid")
        line.device("vmgenid", guid=line.config.genid, id="vmgenid0")


def add_coreinfo(line: Line) -> None:
    """Add the device by which the guest's kernel says how a dump of it is to be read."""
    if line.config.features is not None and line.config.features.vmcoreinfo:
        line.need("vmcoreinfo", "vmcoreinfo")
        line.device("vmcoreinfo")


def add_rng(line: Line, rng: Rng) -> None:
    """Add one random number generator."""
    name = alias(rng.info)
    source = f"obj{name}"
    backend = rng.backend
    if isinstance(backend, EgdBackend):
        line.object("rng-egd", id=source, chardev=add_backend(line, backend.source, name))
    elif isinstance(backend, BuiltinBackend):
        line.need("rng-builtin", "RNG backend 'builtin'")
        line.object("rng-builtin", id=source)
    elif isinstance(backend, RandomBackend):
        path = backend.path or _DEFAULT_RANDOM
        line.uses(path)
        line.object("rng-random", id=source, filename=path)
    else:
        raise unsupported("RNG backend is not supported")
    period = (rng.rate_period or 1000) if rng.rate_bytes is not None else None
    line.device(
        virtio.driver(line, "virtio-rng", rng.model),
        **virtio.options(rng.driver.virtio if rng.driver is not None else None),
        rng=source,
        id=name,
        **{"max-bytes": rng.rate_bytes, "period": period},
        **place(line, rng.info),
    )


def _tpm(line: Line, tpm: Tpm) -> None:
    model = tpm.model or "tpm-tis"
    if model not in line.binary.tpm_models:
        raise unsupported(f"The QEMU executable {line.binary.path} does not support TPM model {model}")
    name = alias(tpm.info)
    backend = tpm.backend
    if isinstance(backend, EmulatorTpm):
        # Without a guest there is no swtpm: what stands here then is only what it would look like.
        given = line.setup.ends.get("tpm")
        end: Properties = {"path": "swtpm.sock"} if given is None else {"fd": line.lend(given)}
        line.chardev("socket", "chrtpm", end)
    elif isinstance(backend, PassthroughTpm):
        _host_tpm(line, f"tpm-{name}", backend.path)
        line.device(model, tpmdev=f"tpm-{name}", id=name)
        return
    elif isinstance(backend, ExternalTpm):
        line.uses(backend.path, write=True)
        line.chardev("socket", "chrtpm", {"path": backend.path})
    else:
        kind = type(backend).kind if backend is not None else ""
        raise unsupported(f"TPM backend type '{kind}' is not supported")
    line.add("tpmdev", f"emulator,id=tpm-{name},chardev=chrtpm")
    line.device(model, tpmdev=f"tpm-{name}", id=name)


def _octal(mode: str | None) -> str | None:
    """Permissions as QEMU takes them: it reads a number without a leading zero as a decimal one."""
    return f"{int(mode, 8):04o}" if mode else None


def _host_tpm(line: Line, name: str, path: str) -> None:
    """The host's own TPM, and the file by which a command that it is busy with is cancelled."""
    device = os.path.basename(path)
    candidates = (f"/sys/class/tpm/{device}/device/cancel", f"/sys/class/misc/{device}/device/cancel")
    cancel = next((one for one in candidates if os.path.exists(one)), "/dev/null")
    # Opened in any case: whether the host has one is known only by that.
    words = {
        "path": (path, os.O_RDWR, "Could not open TPM device"),
        "cancel-path": (cancel, os.O_WRONLY, "Could not open"),
    }
    opened: Properties = {}
    for word, (file, flags, failure) in words.items():
        try:
            opened[word] = line.lent_set(os.open(file, flags | os.O_CLOEXEC), file)
        except OSError as error:
            raise files.os_error(error, f"{failure} {file}") from None
    line.list("tpmdev", "passthrough", id=name, **opened)


def _vsock(line: Line, vsock: Vsock) -> Properties:
    """Open the host's end, and give the guest its address there."""
    if not line.setup.live:
        return {"guest-cid": vsock.cid or 0}
    try:
        descriptor = os.open("/dev/vhost-vsock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        raise unsupported("unable to open vhost-vsock device") from None
    candidates = range(_FIRST_CID, 1 << 31) if vsock.auto is not False else (vsock.cid or 0,)
    for cid in candidates:
        try:
            fcntl.ioctl(descriptor, _VSOCK_SET_GUEST_CID, struct.pack("=Q", cid))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and len(candidates) > 1:
                continue
            os.close(descriptor)
            raise files.os_error(error, "failed to set guest cid") from None
        vsock.cid = cid
        break
    return {"guest-cid": vsock.cid, "vhostfd": str(line.keep(descriptor))}


def add_shmem(line: Line, shmem: Shmem) -> None:
    """Add one piece of shared memory."""
    name = alias(shmem.info)
    model = shmem.model or "ivshmem"
    if model not in ("ivshmem-plain", "ivshmem-doorbell"):
        raise unsupported("ivshmem device is not supported with this QEMU binary")
    line.need(model, f"shmem model '{model}'")
    master = {"master": "on", "peer": "off"}.get(shmem.role or "")
    if model == "ivshmem-doorbell":
        path = shmem.server_path or f"/var/lib/libvirt/shmem-{shmem.name}-sock"
        line.uses(path, write=True)
        line.chardev("socket", f"char{name}", {"path": path})
        line.device(
            model,
            id=name,
            chardev=f"char{name}",
            vectors=shmem.msi_vectors,
            ioeventfd=shmem.msi_ioeventfd,
            **place(line, shmem.info),
        )
        return
    size = (shmem.size or 4) * 1024**2
    line.object(
        "memory-backend-file", id=f"shmmem-{name}", **{"mem-path": f"/dev/shm/{shmem.name}"}, size=size, share=True
    )
    line.device(model, id=name, memdev=f"shmmem-{name}", master=master, **place(line, shmem.info))


def add_filesystem(line: Line, filesystem: Filesystem) -> None:
    """Add one directory."""
    if filesystem.type != "mount":
        raise unsupported("only supports mount filesystem type")
    name = alias(filesystem.info)
    driver = filesystem.driver
    options = virtio.options(driver.virtio if driver is not None else None)
    if driver is not None and driver.type == "virtiofs":
        line.uses(filesystem.source_socket, write=True)
        # Without a socket of somebody else's, a virtiofsd of the guest's own listens there.
        path = filesystem.source_socket or f"{line.setup.private}/{name}-fs.sock"
        line.chardev("socket", f"chr-vu-{name}", {"path": path})
        line.device(
            virtio.driver(line, "vhost-user-fs", None),
            **options,
            id=name,
            chardev=f"chr-vu-{name}",
            **{"queue-size": driver.queue},
            bootindex=line.bootindex(filesystem.info),
            tag=filesystem.target,
            **place(line, filesystem.info),
        )
        return
    if driver is not None and driver.type not in (None, "path", "handle"):
        raise unsupported(f"filesystem driver type '{driver.type}' is not supported")
    if (filesystem.fmode or filesystem.dmode) and filesystem.accessmode != "mapped":
        raise unsupported("fmode and dmode must be used with accessmode=mapped")
    line.list(
        "fsdev",
        "local",
        security_model=_9P_SECURITY[filesystem.accessmode],
        multidevs=filesystem.multidevs if filesystem.multidevs != "default" else None,
        fmode=_octal(filesystem.fmode),
        dmode=_octal(filesystem.dmode),
        writeout=driver.wrpolicy if driver is not None else None,
        id=f"fsdev-{name}",
        path=filesystem.source_dir,
        readonly=True if filesystem.readonly else None,
    )
    line.device(
        virtio.driver(line, "virtio-9p", filesystem.model),
        **options,
        id=name,
        fsdev=f"fsdev-{name}",
        mount_tag=filesystem.target,
        **place(line, filesystem.info),
    )

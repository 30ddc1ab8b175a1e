"""<filesystem>: a directory of the host that the guest sees, by 9p or virtiofs."""

import re

from virtd import constants as c
from virtd.conf.domain.base import Device, Info, VirtioOptions
from virtd.conf.domain.errors import xml_error
from virtd.conf.xml.model import Element, Model, View, attr, flag, inline, sub
from virtd.conf.xml.types import (
    INT,
    ON_OFF,
    ULONG,
    Choice,
    Size,
    Type,
)
from virtd.errors import VirtError

VIRTIO_MODELS = Choice("virtio virtio-transitional virtio-non-transitional")


class FilesystemDriver(Model):
    """How a shared directory is served."""

    type = attr("@type", Choice("path handle loop nbd ploop virtiofs"))
    format = attr("@format")
    wrpolicy = attr("@wrpolicy", Choice("immediate"))
    queue = attr("@queue", ULONG)
    virtio = inline(VirtioOptions)


class Virtiofsd(Model):
    """How the daemon behind virtiofs works."""

    path = attr("@path")
    xattr = attr("@xattr", ON_OFF)
    cache = attr("cache/@mode", Choice("none always"))
    sandbox = attr("sandbox/@mode", Choice("namespace chroot"))
    posix_lock = attr("lock/@posix", ON_OFF)
    flock = attr("lock/@flock", ON_OFF)
    thread_pool_size = attr("thread_pool/@size", INT)


OCTAL = re.compile(r"0*[0-7]{1,3}", re.ASCII)


class FileMode(Type[str]):
    """Permissions in octal; none are said by 0."""

    def parse(self, text: str) -> str:
        if not OCTAL.fullmatch(text):
            raise ValueError("Expected non-negative integer value")
        return f"{int(text, 8):04o}" if int(text, 8) else ""


FILE_MODE = FileMode()


# What says where each type of directory comes from.


FILESYSTEM_SOURCES = {
    "mount": ("dir", "socket"),
    "bind": ("dir",),
    "file": ("file",),
    "block": ("dev",),
    "ram": ("usage",),
}


class Filesystem(Device):
    """A directory of the host in the guest."""

    type = attr("@type", Choice("mount block file template ram bind volume"), default="mount")
    accessmode = attr("@accessmode", Choice("passthrough mapped squash"))
    model = attr("@model", VIRTIO_MODELS)
    multidevs = attr("@multidevs", Choice("default remap forbid warn"), omit="default")
    fmode = attr("@fmode", FILE_MODE, omit="")
    dmode = attr("@dmode", FILE_MODE, omit="")
    driver = sub("driver", FilesystemDriver)
    binary = sub("binary", Virtiofsd)
    source_dir = attr("source/@dir")
    source_file = attr("source/@file")
    source_dev = attr("source/@dev")
    source_socket = attr("source/@socket")
    target = attr("target/@dir")
    readonly = flag("readonly")
    info = inline(Info)
    space_hard_limit = attr("space_hard_limit", Size("bytes", "bytes"), omit=0)
    space_soft_limit = attr("space_soft_limit", Size("bytes", "bytes"), omit=0)

    def loaded(self, el: Element, view: View) -> None:
        """Files are shared as they are, unless a daemon of the user's own decides."""
        if self.accessmode is None and self.source_socket is None:
            self.accessmode = "passthrough"
        if self.driver is not None and self.driver.type is None:
            self.driver.format = self.driver.wrpolicy = None
        if self.driver is None or self.driver.type != "virtiofs":
            self.binary = None
            if self.driver is not None:
                self.driver.queue = None
        source = el.find("source")
        names = FILESYSTEM_SOURCES.get(self.type, ())
        if names and (source is None or not any(source.get(name) for name in (*names, "socket"))):
            if self.type == "ram" and source is not None:
                raise xml_error("missing 'usage' attribute for RAM filesystem")
            raise VirtError(c.VIR_ERR_NO_SOURCE, self.target, domain=c.VIR_FROM_DOMAIN)
        if self.target is None:
            raise VirtError(
                c.VIR_ERR_NO_TARGET,
                source.get(names[0]) if source is not None and names else None,
                domain=c.VIR_FROM_DOMAIN,
            )


# What can be said of each kind of memory device.

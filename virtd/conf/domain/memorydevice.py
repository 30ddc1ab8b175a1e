"""<memory> among the devices: modules that can be plugged in, persistent ones, and virtio's memory."""

from virtd import constants as c
from virtd.conf.domain.base import Device
from virtd.conf.domain.errors import xml_error
from virtd.conf.xml.model import Element, View, attr, flag
from virtd.conf.xml.types import (
    BITMAP,
    KIB,
    UINT,
    UUID,
    YES_NO,
    Choice,
)
from virtd.errors import VirtError

MEMORY_FIELDS = {
    "dimm": ("pagesize", "nodemask"),
    "nvdimm": ("path", "pmem", "alignsize", "label_size", "readonly", "uuid"),
    "virtio-pmem": ("path",),
    "virtio-mem": ("pagesize", "nodemask", "block"),
    "sgx-epc": ("nodemask",),
}


MIN_LABEL = 128
"""The smallest label of an NVDIMM, KiB."""


class MemoryDevice(Device):
    """Memory that is plugged in, beyond what the machine has by itself; sizes in KiB."""

    model = attr("@model", Choice("dimm nvdimm virtio-pmem virtio-mem sgx-epc"), required=True)
    access = attr("@access", Choice("shared private"))
    discard = attr("@discard", YES_NO)
    uuid = attr("uuid", UUID)
    path = attr("source/path")
    alignsize = attr("source/alignsize", KIB)
    pmem = flag("source/pmem")
    nodemask = attr("source/nodemask", BITMAP)
    pagesize = attr("source/pagesize", KIB)
    size = attr("target/size", KIB)
    node = attr("target/node", UINT)
    label_size = attr("target/label/size", KIB)
    block = attr("target/block", KIB)
    requested = attr("target/requested", KIB)
    current = attr("target/current", KIB, live=True)
    readonly = flag("target/readonly")

    def loaded(self, el: Element, view: View) -> None:
        """What each model has; the rest is not said of it."""
        has = MEMORY_FIELDS[self.model or ""]
        for name in ("path", "pmem", "alignsize", "pagesize", "nodemask", "label_size", "block", "readonly", "uuid"):
            if name not in has:
                self.__dict__.pop(name, None)
        if el.find("target") is None:
            raise xml_error("missing <target> element for <memory> device")
        if self.size is None:
            raise VirtError(c.VIR_ERR_XML_ERROR, "missing element or attribute './size'", domain=c.VIR_FROM_XML)
        if self.model == "virtio-pmem":
            self.access = self.access or "shared"
        if self.model == "nvdimm" and self.label_size is not None:
            if self.label_size < MIN_LABEL:
                raise xml_error(f"nvdimm label must be at least {MIN_LABEL}KiB")
            if self.label_size >= self.size:
                raise xml_error("label size must be smaller than NVDIMM size")
        if self.model == "virtio-mem":
            self.requested = self.requested or 0
        else:
            self.requested = None

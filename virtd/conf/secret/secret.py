"""<secret>: what a secret is for. Its value never stands in XML."""

import uuid
from typing import NamedTuple

from virtd import constants as c
from virtd.conf.xml.model import Element, Model, View, attr, sub, write_document
from virtd.conf.xml.read import read_element, root_element
from virtd.conf.xml.types import UUID, YES_NO
from virtd.errors import VirtError

INTERNAL = c.VIR_ERR_INTERNAL_ERROR
INVALID = c.VIR_ERR_XML_ERROR


class UsageKind(NamedTuple):
    """What a secret may be for."""

    number: int  # VIR_SECRET_USAGE_TYPE_*
    element: str  # where its identifier stands
    missing: str  # the error if it does not


USAGES = {
    "none": UsageKind(c.VIR_SECRET_USAGE_TYPE_NONE, "", ""),
    "volume": UsageKind(c.VIR_SECRET_USAGE_TYPE_VOLUME, "volume", "volume usage specified, but volume path is missing"),
    "ceph": UsageKind(c.VIR_SECRET_USAGE_TYPE_CEPH, "name", "Ceph usage specified, but name is missing"),
    "iscsi": UsageKind(c.VIR_SECRET_USAGE_TYPE_ISCSI, "target", "iSCSI usage specified, but target is missing"),
    "tls": UsageKind(c.VIR_SECRET_USAGE_TYPE_TLS, "name", "TLS usage specified, but name is missing"),
    "vtpm": UsageKind(c.VIR_SECRET_USAGE_TYPE_VTPM, "name", "vTPM usage specified, but name is missing"),
}


class Usage(Model):
    """What a secret is for: the kind of thing, and which one."""

    type = attr("@type")
    volume = attr("volume")
    name = attr("name")
    target = attr("target")

    def loaded(self, el: Element, view: View) -> None:
        """Keep the identifier that belongs to the kind."""
        if self.type is None:
            raise VirtError(INVALID, "unknown secret usage type", domain=c.VIR_FROM_SECRET)
        kind = USAGES.get(self.type)
        if kind is None:
            text = f"unknown secret usage type {self.type}"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_SECRET)
        for element in ("volume", "name", "target"):
            if element != kind.element:
                setattr(self, element, None)
            elif getattr(self, element) is None:
                raise VirtError(INTERNAL, kind.missing, domain=c.VIR_FROM_SECRET)


class Secret(Model):
    """A secret."""

    ephemeral = attr("@ephemeral", YES_NO, default=False, bad=(INVALID, "invalid value of 'ephemeral'"))
    private = attr("@private", YES_NO, default=False, bad=(INVALID, "invalid value of 'private'"))
    uuid = attr("uuid", UUID, bad=(INTERNAL, "malformed uuid element"))
    description = attr("description")
    usage = sub("usage", Usage)

    @property
    def usage_type(self) -> int:
        """What it is for, VIR_SECRET_USAGE_TYPE_*."""
        return USAGES["none" if self.usage is None else self.usage.type or "none"].number

    @property
    def usage_id(self) -> str:
        """Which one of that; empty for a secret without usage."""
        usage = self.usage
        return "" if usage is None else usage.volume or usage.name or usage.target or ""


def parse_secret(xml: str) -> Secret:
    """A secret from its XML; one without UUID gets a new one.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    root = root_element(xml, "secret", "definition_of_secret", c.VIR_FROM_SECRET)
    # What is said to be nothing is not said.
    for path, name in ((".", "ephemeral"), (".", "private"), ("usage", "type")):
        for element in root.iterfind(path):
            if element.get(name) == "":
                del element.attrib[name]
    secret = read_element(root, Secret, c.VIR_FROM_SECRET)
    secret.uuid = secret.uuid or str(uuid.uuid4())
    if secret.usage is not None and secret.usage.type == "none":
        secret.usage = None
    return secret


def format_secret(secret: Secret) -> str:
    """The XML of a secret, as libvirt writes it."""
    return write_document(secret, "secret", View())

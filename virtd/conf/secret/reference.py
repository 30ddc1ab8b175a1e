"""<secret> inside other documents: which secret is meant, by its UUID or by what it is for."""

from virtd import constants as c
from virtd.conf.xml.model import Element, Model, View, attr
from virtd.conf.xml.types import UUID
from virtd.errors import VirtError


class SecretReference(Model):
    """Which secret is meant."""

    type = attr("@type")
    uuid = attr("@uuid")
    usage = attr("@usage")

    def loaded(self, el: Element, view: View) -> None:
        """A secret is named in one of two ways."""
        text = None
        if self.uuid is None and self.usage is None:
            text = "missing secret uuid or usage attribute"
        elif self.uuid is not None and self.usage is not None:
            text = "either secret uuid or usage expected"
        elif self.uuid is not None:
            try:
                self.uuid = UUID.parse(self.uuid)
            except ValueError:
                text = f"invalid secret uuid '{self.uuid}'"
        if text is not None:
            raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_NONE)

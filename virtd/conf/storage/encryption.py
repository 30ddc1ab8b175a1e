"""<encryption> of a volume: how an image is encrypted, and which secret opens it."""

from virtd import constants as c
from virtd.conf.secret.reference import SecretReference
from virtd.conf.xml.model import Element, Model, View, attr, sub, subs
from virtd.conf.xml.types import UINT, Choice
from virtd.errors import VirtError

INVALID = c.VIR_ERR_XML_ERROR
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED
FORMATS = ("default", "qcow", "luks", "luks2")


class Cipher(Model):
    """The cipher of a new image."""

    name = attr("@name")
    size = attr("@size", UINT, required=True)
    mode = attr("@mode")
    hash = attr("@hash")

    def loaded(self, el: Element, view: View) -> None:
        """It must have a name."""
        if self.name is None:
            raise VirtError(INVALID, "cipher info missing 'name' attribute", domain=c.VIR_FROM_STORAGE)


class IvGenerator(Model):
    """How the initialisation vectors of a new image are made."""

    name = attr("@name")
    hash = attr("@hash")

    def loaded(self, el: Element, view: View) -> None:
        """It must have a name."""
        if self.name is None:
            raise VirtError(INVALID, "missing ivgen info name string", domain=c.VIR_FROM_STORAGE)


class Passphrase(SecretReference):
    """The secret that opens an image."""

    def loaded(self, el: Element, view: View) -> None:
        """It is a passphrase, whichever is meant."""
        if self.type is None:
            raise VirtError(INVALID, "unknown volume encryption secret type", domain=c.VIR_FROM_STORAGE)
        if self.type != "passphrase":
            text = f"unknown volume encryption secret type {self.type}"
            raise VirtError(UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        super().loaded(el, view)


class Encryption(Model):
    """How an image is encrypted."""

    format = attr("@format")
    engine = attr("@engine", Choice("qemu librbd"))
    secrets = subs("secret", Passphrase)
    cipher = sub("cipher", Cipher)
    ivgen = sub("ivgen", IvGenerator)

    def loaded(self, el: Element, view: View) -> None:
        """Check the names, and that cipher and format fit."""
        if self.format is None:
            raise VirtError(INVALID, "unknown volume encryption format", domain=c.VIR_FROM_STORAGE)
        if self.format not in FORMATS:
            text = f"unknown volume encryption format type {self.format}"
            raise VirtError(UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        if self.cipher is None and self.ivgen is not None:
            raise VirtError(INVALID, "ivgen element found, but cipher is missing", domain=c.VIR_FROM_STORAGE)

"""<tpm>: the guest's trusted platform module, and what plays it on the host."""

from virtd import constants as c
from virtd.conf.domain.base import Device
from virtd.conf.domain.errors import conf_error, internal_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, flag, sub
from virtd.conf.xml.types import (
    TEXT,
    UUID,
    YES_NO,
    Choice,
)


class TpmBackend(Model, by="@type"):
    """What is behind a TPM."""


class PassthroughTpm(TpmBackend, kind="passthrough"):
    """The host's own TPM."""

    path = attr("device/@path", TEXT, default="/dev/tpm0")


BANKS = ("sha1", "sha256", "sha384", "sha512")


NO_SECRET = "0" * 32


class EmulatorTpm(TpmBackend, kind="emulator"):
    """An swtpm."""

    version = attr("@version", Choice("1.2 2.0"))
    persistent_state = attr("@persistent_state", YES_NO, omit=False)
    secret = attr("encryption/@secret")
    pcr_sha1 = flag("active_pcr_banks/sha1")
    pcr_sha256 = flag("active_pcr_banks/sha256")
    pcr_sha384 = flag("active_pcr_banks/sha384")
    pcr_sha512 = flag("active_pcr_banks/sha512")

    def loaded(self, el: Element, view: View) -> None:
        """Measurements are kept in banks that there are; a secret has a name."""
        for bank in el.iterfind("active_pcr_banks/*"):
            if bank.tag not in BANKS:
                raise conf_error(f"Unsupported PCR banks '{bank.tag}'")
        try:
            UUID.parse(self.secret or NO_SECRET)
        except ValueError:
            raise internal_error(f"Unable to parse secret uuid '{self.secret}'") from None

    @property
    def banks(self) -> bool:
        """Whether it is said which measurements are kept."""
        return self.pcr_sha1 or self.pcr_sha256 or self.pcr_sha384 or self.pcr_sha512


class ExternalTpm(TpmBackend, kind="external"):
    """A TPM that somebody else started, on a UNIX socket."""

    type = attr("source/@type")
    mode = attr("source/@mode", Choice("connect bind"))
    path = attr("source/@path")

    def loaded(self, el: Element, view: View) -> None:
        """It is somewhere."""
        if self.type is None:
            raise xml_error("missing external TPM backend type")
        self.mode = self.mode or "connect"


class Tpm(Device):
    """A trusted platform module."""

    model = attr("@model", Choice("tpm-tis tpm-crb tpm-spapr spapr-tpm-proxy"))
    backend = sub("backend", TpmBackend, only=(c.VIR_ERR_XML_ERROR, "only one TPM backend is supported"))

    def loaded(self, el: Element, view: View) -> None:
        """A TPM has something behind it; the model says which version."""
        if self.backend is None:
            raise xml_error("missing TPM device backend")
        self.model = self.model or "tpm-tis"
        if isinstance(self.backend, EmulatorTpm) and self.backend.version is None:
            self.backend.version = "1.2" if self.model == "tpm-tis" else "2.0"

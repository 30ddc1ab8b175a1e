"""The errors of domain XML, each of libvirt's kinds by a name of its own. They are returned; callers raise them."""

from virtd import constants as c
from virtd.errors import VirtError


def conf_error(text: str, *, domain: int = c.VIR_FROM_DOMAIN) -> VirtError:
    """VIR_ERR_CONFIG_UNSUPPORTED: what is asked for makes no sense, or cannot be had."""
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=domain)


def qemu_error(text: str) -> VirtError:
    """The same, from the QEMU driver's own checks."""
    return conf_error(text, domain=c.VIR_FROM_QEMU)


def xml_error(text: str, *, domain: int = c.VIR_FROM_DOMAIN) -> VirtError:
    """VIR_ERR_XML_ERROR: the document is not what it should be."""
    return VirtError(c.VIR_ERR_XML_ERROR, text, domain=domain)


def detail_error(text: str) -> VirtError:
    """VIR_ERR_XML_DETAIL: the same, in words without anything before them."""
    return VirtError(c.VIR_ERR_XML_DETAIL, text, domain=c.VIR_FROM_DOMAIN)


def internal_error(text: str, *, domain: int = c.VIR_FROM_DOMAIN) -> VirtError:
    """VIR_ERR_INTERNAL_ERROR, which libvirt uses for many a wrong value too."""
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=domain)

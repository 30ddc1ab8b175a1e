"""A definition for another host (VIR_DOMAIN_XML_MIGRATABLE): without what every host adds by itself.

Older libvirts do not know all that is added to each guest, and refuse what they do not know.
"""

import copy

from virtd.conf.domain.basics import is_i440fx
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.domain import Domain


def trimmed(domain: Domain) -> Domain:
    """A copy that shares all devices but lacks those that are always there; the original stays as it is."""
    trimmed = copy.copy(domain)
    usb = [controller for controller in domain.controllers if controller.type == "usb"]
    alone = is_i440fx(domain.os.machine or "") and len(usb) == 1
    trimmed.controllers = [
        controller for controller in domain.controllers if not _implied(controller, usb_is_alone=alone)
    ]
    trimmed.inputs = [device for device in domain.inputs if (device.type, device.bus) != ("keyboard", "ps2")]
    trimmed.audios = [audio for audio in domain.audios if audio.type != "none"]
    trimmed.seclabels = [label for label in domain.seclabels if label.type != "dynamic" or label.baselabel]
    return trimmed


def _implied(controller: Controller, *, usb_is_alone: bool) -> bool:
    """Whether a machine has a controller without being told."""
    if controller.index != 0:
        return False
    if controller.type == "usb":
        return usb_is_alone and controller.model in (None, "piix3-uhci")
    return controller.type == "pci" and controller.model == "pci-root" and controller.pcihole64 is None

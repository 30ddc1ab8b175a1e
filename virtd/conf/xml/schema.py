"""Validation against libvirt's own RELAX NG schemas, for calls which ask for it (the VALIDATE flags).

The schemas are libvirt's (Debian: libvirt-common or libvirt0; Fedora: libvirt-libs), not part of virtd; without them a
call that asks for validation is refused.
"""

import os
from functools import cache

from lxml import etree

from virtd import constants as c
from virtd.errors import VirtError

DIRECTORY = "/usr/share/libvirt/schemas"


def validate(root: etree._Element, schema: str) -> None:
    """Hold a document against a schema.

    Args:
        root: the document's root element.
        schema: the schema's file name, such as "domain.rng".

    Raises:
        VirtError: VIR_ERR_XML_INVALID_SCHEMA with libxml2's messages; VIR_ERR_OPERATION_UNSUPPORTED, the schemas are
            not installed.
    """
    path = f"{DIRECTORY}/{schema}"
    if not os.path.exists(path):
        text = f"XML cannot be validated, because libvirt's schema {path} is not installed"
        raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_XML)
    rules = _load(path)
    if not rules.validate(root):
        # libxml2 reports from the outermost error to the innermost; libvirt's users know the other order.
        messages = "".join(f"{entry.message}\n" for entry in rules.error_log)
        text = f"Unable to validate doc against {path}\n{messages}"
        raise VirtError(c.VIR_ERR_XML_INVALID_SCHEMA, text, domain=c.VIR_FROM_XML)


@cache
def _load(path: str) -> etree.RelaxNG:
    return etree.RelaxNG(file=path)

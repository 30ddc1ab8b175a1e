"""From a text to a model: what all documents but a domain's have in common.

The errors of declarations carry the domain part's own VIR_FROM_DOMAIN; here they get that of the document.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from virtd import constants as c
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import Element, Model, View, local_name
from virtd.errors import VirtError

M = TypeVar("M", bound=Model)


def read_document(xml: str, model: type[M], tag: str, what: str, domain: int, view: View | None = None) -> M:
    """Read a document into a model.

    Args:
        xml: the document.
        model: the root element's model.
        tag: the root element's name.
        what: how errors of the syntax call the document, for instance "secret_definition".
        domain: the VIR_FROM_* constant of errors.
        view: what is read; by default what a definition holds.

    Raises:
        VirtError: what is wrong with it.
    """
    return read_element(root_element(xml, tag, what, domain), model, domain, view)


def root_element(xml: str, tag: str, what: str, domain: int) -> Element:
    """A document's root element, which has a certain name; see read_document().

    Raises:
        VirtError: VIR_ERR_XML_DETAIL or VIR_ERR_XML_ERROR.
    """
    root = parse_document(xml, what, domain=domain)
    if local_name(root) != tag:
        text = f"expecting root element of '{tag}', not '{local_name(root)}'"
        raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_XML)
    return root


def read_element(root: Element, model: type[M], domain: int, view: View | None = None) -> M:
    """Read a root element into a model; see read_document()."""
    with errors_from(domain):
        return model.read(root, view or View())


@contextmanager
def errors_from(domain: int) -> Iterator[None]:
    """Let the errors of declarations inside come from another part than the domain's."""
    try:
        yield
    except VirtError as error:
        if error.domain == c.VIR_FROM_DOMAIN:
            error.domain = domain
        raise

"""Whatever comes in: a domain or a VirtError, never another exception; and what is written is read as the same."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from virtd.conf.domain import format_domain, parse_domain
from virtd.conf.domain.domain import Domain
from virtd.conf.host import GOLDEN_HOST
from virtd.conf.xml.model import Listed, Model, Nested, Scalar
from virtd.errors import VirtError

GOLDEN = Path(__file__).parent / "golden"
SOURCES = [path.read_text() for path in sorted(GOLDEN.glob("*.xml"))]
JUNK = st.sampled_from(
    ["", "-1", "0", "1", "99999999999999999999", "yes", "on", "pci", "virtio", "a" * 300, "\u00e4", "%s", "0x", "1,,2"]
)
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def never_crashes(xml: str) -> None:
    """The invariant."""
    try:
        domain = parse_domain(xml, GOLDEN_HOST)
    except VirtError:
        return
    text = format_domain(domain)
    # libvirt sorts controllers and numbers consoles when it reads them, not when it adds some: so the second round is
    # the fixed point.
    second = format_domain(parse_domain(text, GOLDEN_HOST))
    assert len(second.split("\n")) == len(text.split("\n"))
    assert format_domain(parse_domain(second, GOLDEN_HOST)) == second


@QUIET
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    never_crashes(text)


@QUIET
@given(st.sampled_from(SOURCES), st.integers(0, 1 << 30), st.text("<>&'\"/=ax \x00", max_size=4))
def test_damaged_documents(source: str, place: int, junk: str) -> None:
    place %= len(source)
    never_crashes(source[:place] + junk + source[place + len(junk) :])


@QUIET
@given(st.data())
def test_wrong_values(data: st.DataObject) -> None:
    root = etree.fromstring(data.draw(st.sampled_from(SOURCES)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        element = data.draw(st.sampled_from(list(root.iter("*"))))
        what = data.draw(st.integers(0, 3))
        if what == 0 and element.attrib:
            element.set(data.draw(st.sampled_from(sorted(str(k) for k in element.attrib))), data.draw(JUNK))
        elif what == 1 and element.attrib:
            del element.attrib[data.draw(st.sampled_from(sorted(str(k) for k in element.attrib)))]
        elif what == 2 and element.getparent() is not None:
            element.getparent().remove(element)
        else:
            element.text = data.draw(JUNK)
    never_crashes(etree.tostring(root, encoding="unicode"))


def models(model: type[Model], seen: set[type[Model]]) -> set[type[Model]]:
    """All models that can stand in a model."""
    if model not in seen:
        seen.add(model)
        for kind in model.kinds.values() if model.by else ():
            models(kind, seen)
        for field in model.fields.values():
            if isinstance(field, Nested):
                models(field.model, seen)
    return seen


ALL = sorted(models(Domain, set()), key=lambda model: model.__qualname__)


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__qualname__)
def test_every_model_has_a_plan_and_words(model: type[Model]) -> None:
    """Declarations do not contradict each other, paths are well formed, and each class says what it is."""
    model.plan()
    assert model.__doc__
    for name, field in model.fields.items():
        assert re.fullmatch(r"\.|@?[\w:.-]+(/@?[\w:.-]+)*", field.path), (name, field.path)
        if isinstance(field, Scalar) and field.default is not None:
            assert field.of.parse(field.of.format(field.default)) == field.default
        if isinstance(field, Listed):
            assert getattr(model(), name) == []

"""The engine: each kind of declaration is read, written and refused as libvirt does it."""

import pytest
from lxml import etree

from virtd import constants as c
from virtd.conf.xml.model import Model, View, attr, flag, inline, part, raw, sub, subs, texts, write_document
from virtd.conf.xml.types import INT, KIB, ON_OFF, TEXT, UINT, YES_NO, Choice
from virtd.errors import VirtError

PLAIN, LIVE, SECURE = View(), View(live=True), View(secure=True)


class Place(Model, by="@type", missing=(c.VIR_ERR_INTERNAL_ERROR, "no type")):
    """A base of kinds."""

    note = attr("@note")


class Pci(Place, kind="pci"):
    """One kind."""

    slot = attr("@slot", UINT, default=0)


class Usb(Place, kind="usb hub"):
    """Another, with two names."""

    port = attr("@port")


class Info(Model):
    """Common parts."""

    alias = attr("alias/@name", live=True)
    place = sub("place", Place)


class Backend(Model, by="."):
    """Kinds told apart by their user."""


class FileBackend(Backend, kind="file"):
    """A file."""

    path = attr("@path")


class Item(Model):
    """A list's item."""

    id = attr("@id", INT, required=True)
    text = attr(".")


class Tail(Model):
    """A part that always exists."""

    size = attr("size", KIB)
    hidden = attr("hidden/@state", ON_OFF)


class Thing(Model, refuse="later @later inner/later"):
    """Everything at once."""

    type = attr("@type", Choice("file none"), default="none")
    password = attr("@password", secure=True)
    count = attr("@count", UINT, omit=0)
    name = attr("name")
    inner = attr("inner/@value", Choice("a b"), bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown inner '%s'"))
    ready = flag("inner/ready")
    backend = sub("backend", Backend, by="type")
    items = subs("list/item", Item)
    words = texts("word", TEXT)
    tail = part("tail", Tail)
    yes = attr("yes", YES_NO)
    foreign = raw("foreign")
    only = sub("only", Item, only=(c.VIR_ERR_XML_ERROR, "only one"))
    info = inline(Info)


def read(xml: str, view: View = PLAIN) -> Thing:
    return Thing.read(etree.fromstring(xml), view)


FULL = """<thing type='file' count='3'>
  <name>a &lt;b&gt; &amp; &apos;c&apos;</name>
  <inner value='b'>
    <ready/>
  </inner>
  <backend path='/p'/>
  <list>
    <item id='1'>one</item>
    <item id='-2'/>
  </list>
  <word>x</word>
  <word>y</word>
  <tail>
    <size unit='KiB'>2048</size>
    <hidden state='off'/>
  </tail>
  <yes>no</yes>
  <foreign>
    <a:x xmlns:a="urn:a">t<b/>u</a:x>
  </foreign>
  <place type='pci' slot='4' note='n'/>
</thing>
"""


def test_round_trip() -> None:
    thing = read(FULL)
    assert write_document(thing, "thing", PLAIN) == FULL
    assert read(write_document(thing, "thing", PLAIN)) == thing
    assert thing.copy() == thing


def test_values_have_their_types() -> None:
    thing = read(FULL)
    assert (thing.count, thing.ready, thing.yes, thing.tail.size) == (3, True, False, 2048)
    assert [(item.id, item.text) for item in thing.items] == [(1, "one"), (-2, None)]
    assert isinstance(thing.backend, FileBackend)
    place = thing.info.place
    assert isinstance(place, Pci)
    assert (place.kind, place.slot) == ("pci", 4)


def test_nothing_is_written_for_nothing() -> None:
    assert write_document(Thing(), "thing", PLAIN) == "<thing type='none'/>\n"
    assert write_document(read("<thing count='0'/>"), "thing", PLAIN) == "<thing type='none'/>\n"


def test_views() -> None:
    thing = read("<thing password='p'><alias name='x0'/></thing>", LIVE)
    assert thing.info.alias == "x0"
    assert "x0" not in write_document(thing, "thing", PLAIN)
    assert "<alias name='x0'/>" in write_document(thing, "thing", LIVE)
    assert "password" not in write_document(thing, "thing", LIVE)
    assert "password='p'" in write_document(thing, "thing", SECURE)
    assert read("<thing><alias name='x0'/></thing>").info.alias is None


def test_the_first_counts_and_strangers_are_ignored() -> None:
    thing = read("<thing strange='1'><name>a</name><name>b</name><strange/><!-- c --></thing>")
    assert thing.name == "a"


def test_kinds_with_two_names_keep_theirs() -> None:
    thing = read("<thing><place type='hub' port='1'/></thing>")
    assert "<place type='hub' port='1'/>" in write_document(thing, "thing", PLAIN)


@pytest.mark.parametrize(
    ("xml", "code", "message"),
    [
        ("<thing type='x'/>", c.VIR_ERR_XML_ERROR, "Invalid value for attribute 'type' in element 'thing': 'x'."),
        ("<thing count='-1'/>", c.VIR_ERR_XML_ERROR, "in element 'thing': '-1'. Expected non-negative integer value"),
        ("<thing><inner value='z'/></thing>", c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown inner 'z'"),
        (
            "<thing><list><item/></list></thing>",
            c.VIR_ERR_XML_ERROR,
            "Missing required attribute 'id' in element 'item'",
        ),
        ("<thing><place/></thing>", c.VIR_ERR_INTERNAL_ERROR, "no type"),
        (
            "<thing><place type='q'/></thing>",
            c.VIR_ERR_XML_ERROR,
            "Invalid value for attribute 'type' in element 'place': 'q'.",
        ),
        ("<thing><only id='1'/><only id='2'/></thing>", c.VIR_ERR_XML_ERROR, "only one"),
        ("<thing><later/></thing>", c.VIR_ERR_CONFIG_UNSUPPORTED, "'later' is not supported"),
        ("<thing later='1'/>", c.VIR_ERR_CONFIG_UNSUPPORTED, "'thing/@later' is not supported"),
        ("<thing><inner><later/></inner></thing>", c.VIR_ERR_CONFIG_UNSUPPORTED, "'later' is not supported"),
    ],
)
def test_errors(xml: str, code: int, message: str) -> None:
    with pytest.raises(VirtError) as caught:
        read(xml)
    assert caught.value.code == code
    assert message in caught.value.message


def test_only_declared_fields_can_be_given() -> None:
    assert Thing(name="n").name == "n"
    with pytest.raises(TypeError):
        Thing(nmae="n")


def test_declarations_are_gone_at_run_time() -> None:
    assert Thing.count is None
    assert Thing.type == "none"
    assert set(Thing.fields) >= {"type", "count", "info"}

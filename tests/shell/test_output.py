"""Tables, fields, trees: as virsh prints them, with colours, and as data."""

from __future__ import annotations

import pytest

from virtd.protocol.records import TypedParam, TypedValue
from virtd.shell import progress, top, typed, xmltext
from virtd.shell.failure import Failure
from virtd.shell.output import Cell, Fields, Lines, Plain, Single, Style, Table, Tree, visible, width, yes

_PLAIN, _COLOURED = Style(False), Style(True)


def _table() -> Table:
    table = Table([("id", "Id"), ("name", "Name"), ("state", "State")])
    table.add(1, "web", "running")
    table.add(None, "a longer name", "shut off")
    return table


def test_a_table() -> None:
    assert _table().text(_PLAIN, quiet=False) == (
        " Id   Name            State\n"
        "--------------------------------\n"
        " 1    web             running\n"
        " -    a longer name   shut off\n"
    )
    assert _table().text(_PLAIN, quiet=True) == " 1   web             running\n -   a longer name   shut off\n"
    assert _table().data() == [
        {"id": 1, "name": "web", "state": "running"},
        {"id": None, "name": "a longer name", "state": "shut off"},
    ]


def test_colours_do_not_move_anything() -> None:
    coloured = _table().text(_COLOURED, quiet=False)
    assert "\033[32mrunning\033[0m" in coloured
    plain = coloured
    for code in ("\033[0m", "\033[1m", "\033[2m", "\033[32m"):
        plain = plain.replace(code, "")
    assert plain == _table().text(_PLAIN, quiet=False)


def test_wide_and_dangerous_letters() -> None:
    assert (width("日本"), width("é"), width("abc")) == (4, 1, 3)
    assert visible("a\033[2Jb") == "a\\x1b[2Jb"
    table = Table([("name", "Name"), ("x", "X")], [["日本", "1"], ["abc\n", "2"]])
    assert table.text(_PLAIN, quiet=True) == " 日本      1\n abc\\x0a   2\n"


def test_the_rest() -> None:
    fields = Fields(15)
    fields.add("Name:", "web")
    fields.add("Max memory:", Cell("1 KiB", 1), "max_memory_kib")
    fields.add("Persistent:", yes(1))
    assert fields.text(_PLAIN, quiet=False) == "Name:           web\nMax memory:     1 KiB\nPersistent:     yes\n"
    assert fields.data() == {"name": "web", "max_memory_kib": 1, "persistent": True}
    assert Lines(["a", None]).text(_PLAIN, quiet=False) == "a\n-\n"
    assert Single("id", None, end="").text(_PLAIN, quiet=False) == "-"
    assert Plain("xml", "<a/>\n", 5).data() == {"xml": 5}


def test_a_tree() -> None:
    tree = Tree({"a": None, "b": "a", "c": "b", "d": "a", "e": "d", "f": None})
    assert tree.text(_PLAIN, quiet=False) == (
        "a\n  |\n  +- b\n  |   |\n  |   +- c\n  |     \n  +- d\n      |\n      +- e\n        \nf\n"
    )
    assert tree.data()[1] == {"name": "f", "children": []}


def test_typed_parameters() -> None:
    assert typed.text(TypedParam("x", TypedValue(6, 1))) == "yes"
    assert typed.text(TypedParam("x", TypedValue(5, 0.5))) == "0.500000"
    assert typed.parse("x", 2, "7") == TypedParam("x", TypedValue(2, 7))
    with pytest.raises(Failure, match="invalid value '-1'"):
        typed.parse("x", 2, "-1")


def test_xpath() -> None:
    document = "<a><b c='1'/>\n<b c='2'><d/></b></a>"
    assert xmltext.extract(document, "//b[2]", wrap=False) == '<b c="2">\n  <d/>\n</b>\n'
    assert xmltext.extract(document, "//@c", wrap=False) == ' c="1"\n c="2"\n'
    assert xmltext.extract(document, "//d | //@c", wrap=True).startswith("<nodes")
    assert xmltext.extract(document, "//x", wrap=False) == ""
    with pytest.raises(Failure, match="Incorrect xpath"):
        xmltext.extract(document, "count(//b)", wrap=False)
    with pytest.raises(Failure, match="Incorrect xpath"):
        xmltext.extract(document, "//[", wrap=False)


def test_a_document_is_written_in_libvirts_style() -> None:
    xml = xmltext.Builder()
    xml.start("a", type="x")
    xml.leaf("b", "it's <", c=None)
    xml.leaf("d")
    xml.end("a")
    assert str(xml) == "<a type='x'>\n  <b>it&apos;s &lt;</b>\n  <d/>\n</a>\n"


def test_progress() -> None:
    half = progress.line("copying", 5 << 20, 10 << 20, 2.0, 80)
    assert half.startswith("copying [")
    assert half.endswith("]  50%  5.0 MiB  2.5 MiB/s  0:02 left")
    assert len(half) <= 80
    assert progress.line("copying", 100, 0, 0, 80) == "copying  100 B"
    assert len(progress.line("copying", 5 << 20, 10 << 20, 2.0, 20)) == 20


def test_what_guests_use() -> None:
    before = top.Sample("web", 1, "running", 2, 10**9, 1024, 0, 0, None, None)
    now = before._replace(cpu_ns=2 * 10**9, read=2048)
    [line] = top.lines_of({"web": before}, [now], 2.0)
    assert (line.cpu, line.read, line.written, line.received) == (50.0, 1024.0, 0.0, None)
    [line] = top.lines_of({"web": before}, [now._replace(number=2)], 2.0)
    assert line.cpu == 0
    assert top.sparkline([0, 50, 100], 100) == "▁▅█"

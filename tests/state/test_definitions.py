"""Directories of definitions: what is read again, what is remembered, and what a new process need not read."""

import os
from pathlib import Path

import pytest

from virtd.state.commit import Generation
from virtd.state.definitions import DefinitionDirectory

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def xml(uuid: str) -> str:
    return f"<domain><name>any</name><uuid>{uuid}</uuid></domain>"


@pytest.fixture
def directory(tmp_path: Path) -> DefinitionDirectory:
    return DefinitionDirectory(str(tmp_path / "etc"), str(tmp_path / "index"))


def define(directory: DefinitionDirectory, name: str, uuid: str) -> str:
    directory.prepare(name, xml(uuid)).publish()
    return directory.path(name)


def test_what_changed_is_read_again(directory: DefinitionDirectory) -> None:
    define(directory, "a", ONE)
    assert directory.read() == {ONE: "a"}
    changed = [define(directory, "b", TWO), define(directory, "a", ONE)]
    assert directory.read_again(changed) == {ONE, TWO}
    assert directory.names == {ONE: "a", TWO: "b"}
    os.unlink(directory.path("a"))
    assert directory.read_again([directory.path("a"), "/elsewhere/c.xml"]) == {ONE}
    assert directory.names == {TWO: "b"}


def test_a_rename_moves_the_name_whatever_is_read_first(directory: DefinitionDirectory) -> None:
    old = define(directory, "old", ONE)
    directory.read()
    new = define(directory, "new", ONE)
    assert directory.read_again([new]) == {ONE}
    assert directory.names == {ONE: "new"}
    os.unlink(old)
    assert directory.read_again([new, old]) == {ONE}
    assert directory.names == {ONE: "new"}


def test_of_two_files_of_one_uuid_the_other_counts_when_one_goes(directory: DefinitionDirectory) -> None:
    define(directory, "old", ONE)
    directory.read()
    new = define(directory, "new", ONE)
    directory.read_again([new])
    os.unlink(new)
    directory.read_again([new])
    assert directory.names == {ONE: "old"}


def test_a_name_that_is_given_to_another_object(directory: DefinitionDirectory) -> None:
    path = define(directory, "a", ONE)
    directory.read()
    define(directory, "a", TWO)
    assert directory.read_again([path]) == {ONE, TWO}
    assert directory.names == {TWO: "a"}


def test_a_link_concerns_its_definition(directory: DefinitionDirectory, tmp_path: Path) -> None:
    define(directory, "a", ONE)
    directory.read()
    with Generation(str(tmp_path / "run")).commit() as change:
        directory.link_autostart("a", change)
    assert directory.read_again([directory.autostart_path("a")]) == {ONE}
    assert directory.autostarts() == {"a"}


def test_a_new_process_reads_the_index_instead_of_the_files(tmp_path: Path) -> None:
    place, index = str(tmp_path / "etc"), str(tmp_path / "index")
    first = DefinitionDirectory(place, index)
    uuids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(150)]
    for number, uuid in enumerate(uuids):
        define(first, f"g{number}", uuid)
    os.utime(place, ns=(0, 10**18))
    expected = first.read()
    assert len(expected) == 150
    # What the files say now nobody looks at, as long as the directory is as it was.
    content, when = Path(first.path("g7")).read_text(encoding="utf-8"), os.stat(place).st_mtime_ns
    Path(first.path("g7")).write_text(content.replace(uuids[7], TWO), encoding="utf-8")
    assert DefinitionDirectory(place, index).read() == expected
    # One that has changed is read, the others are not.
    os.utime(place, ns=(0, when + 1))
    again = DefinitionDirectory(place, index).read()
    assert again.keys() == expected.keys() - {uuids[7]} | {TWO}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"known": 1}', '{"known": {"a": [[1, 2], "x"]}, "directory": 5}'])
def test_a_broken_index_is_none(tmp_path: Path, content: str) -> None:
    made = DefinitionDirectory(str(tmp_path / "etc"), str(tmp_path / "index"))
    define(made, "a", ONE)
    (tmp_path / "index").write_text(content, encoding="ascii")
    assert made.read() == {ONE: "a"}

"""What was made of files is made anew when they change, and not before."""

from pathlib import Path

from virtd.state import files, kept

Known = dict[str, tuple[files.Identity, bytes]]


def test_a_thing_is_made_once_for_each_content(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    made: list[bytes] = []
    known: Known = {}

    def make(content: bytes) -> bytes:
        made.append(content)
        return content.upper()

    assert kept.get(known, path, make, most=8) is None
    for content in (b"x", b"y"):
        files.replace(path, content, durable=False)
        assert kept.get(known, path, make, most=8) == kept.get(known, path, make, most=8) == content.upper()
    files.remove(path)
    assert kept.get(known, path, make, most=8) is None
    assert made == [b"x", b"y"]


def test_there_are_never_more_than_so_many(tmp_path: Path) -> None:
    known: Known = {}
    for number in range(5):
        files.replace(f"{tmp_path}/{number}", b"%d" % number, durable=False)
        assert kept.get(known, f"{tmp_path}/{number}", bytes, most=2) == b"%d" % number
        assert len(known) <= 2


def test_nothing_is_kept_of_what_nothing_was_made_of(tmp_path: Path) -> None:
    known: Known = {}
    files.replace(f"{tmp_path}/a", b"x", durable=False)
    assert kept.get(known, f"{tmp_path}/a", lambda _content: None, most=2) is None
    assert kept.get(known, f"{tmp_path}/a", bytes, most=2) == b"x"

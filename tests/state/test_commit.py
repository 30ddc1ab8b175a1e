"""Commits: what changed is seen by all at once, and a writer's death inside one harms nobody."""

import os
import select
import signal
from pathlib import Path

import pytest

from virtd.errors import VirtError
from virtd.state import files, journal, locks, ring
from virtd.state.commit import Generation


def test_the_counter_rises_with_each_commit_in_every_process(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    before = generation.current()
    assert before is not None
    pid = os.fork()
    if pid == 0:
        with Generation(str(tmp_path)).commit():
            pass
        os._exit(0)
    os.waitpid(pid, 0)
    assert generation.current() == before + 1


def test_no_view_is_trusted_during_a_commit(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    with generation.commit():
        assert generation.current() is None
    assert generation.current() is not None


def test_a_writers_death_inside_a_commit_is_completed_by_the_next_reader(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    before = generation.current()
    pid = os.fork()
    if pid == 0:
        with Generation(str(tmp_path)).commit():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    after = generation.current()
    assert after is not None
    assert after != before


def test_concurrent_commits_are_all_counted(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    before = generation.current()
    assert before is not None
    children = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            for _ in range(50):
                with generation.commit() as change:
                    change.event("test", "tick")
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    assert generation.current() == before + 400


def test_a_failing_commit_ends(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    with pytest.raises(VirtError), generation.commit() as change:
        change.publish(files.Pending(str(tmp_path / "missing"), str(tmp_path / "target"), durable=False))
    assert generation.current() is not None


def test_subscribers_hear_of_every_event_in_order_from_any_process(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    with generation.commit() as change:
        change.event("test", "before")
    reader = generation.subscribe()
    assert reader.read() == []
    pid = os.fork()
    if pid == 0:
        for number in range(300):
            with generation.commit() as change:
                change.event("test", "tick", number=number)
        os._exit(0)
    numbers: list[object] = []
    while len(numbers) < 300:
        assert select.select([reader], [], [], 10)[0]
        numbers += [record["number"] for record in reader.read()]
    os.waitpid(pid, 0)
    assert numbers == list(range(300))
    assert reader.read() == []
    reader.close()


def test_a_slow_subscriber_misses_nothing_over_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_SIZE", 200)
    generation = Generation(str(tmp_path))
    reader = generation.subscribe()
    for number in range(20):
        with generation.commit() as change:
            change.event("test", "tick", number=number, padding="x" * 50)
    assert [record["number"] for record in reader.read()] == list(range(20))
    assert len(os.listdir(tmp_path / "journal")) <= journal.SEGMENTS_KEPT + 1
    reader.close()


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    reader = generation.subscribe()
    with generation.commit() as change:
        change.event("test", "one")
    with open(tmp_path / "journal" / "1", "ab") as segment:
        segment.write(b'{"source":"te')
    with generation.commit() as change:
        change.event("test", "two")
    assert [record["name"] for record in reader.read()] == ["one", "two"]
    reader.close()


def test_reading_in_portions(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    reader = generation.subscribe()
    with generation.commit() as change:
        for number in range(30):
            change.event("test", "tick", number=number, padding="x" * 10000)
    numbers: list[object] = []
    while portion := reader.read(most=5):
        numbers += [record["number"] for record in portion]
    assert numbers == list(range(30))
    reader.close()


def publish(generation: Generation, *paths: Path) -> None:
    with generation.commit() as change:
        for path in paths:
            change.publish(files.prepare(str(path), b"x", durable=False))


def test_who_kept_a_view_is_told_which_files_changed(tmp_path: Path) -> None:
    mine, other = Generation(str(tmp_path)), Generation(str(tmp_path))
    publish(other, tmp_path / "before")
    position = mine.position
    assert mine.changed_since(position) == []
    publish(other, tmp_path / "a", tmp_path / "b")
    with other.commit() as change:
        change.remove(str(tmp_path / "a"))
    assert mine.changed_since(position) == [str(tmp_path / name) for name in "aba"]
    assert mine.changed_since(mine.position) == []


def test_a_file_that_a_commit_is_about_to_change_is_told_again_after_it(tmp_path: Path) -> None:
    mine, other = Generation(str(tmp_path)), Generation(str(tmp_path))
    with other.commit() as change:
        change.note(str(tmp_path / "a"))
        position = mine.position
    assert mine.changed_since(position) == [str(tmp_path / "a")]


def test_who_comes_too_late_is_told_nothing(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    position = generation.position
    with generation.commit() as change:
        for number in range(ring.SLOTS):
            change.note(str(number))
    assert generation.changed_since(position) == [str(number) for number in range(ring.SLOTS)]
    with generation.commit() as change:
        change.note("more")
    assert generation.changed_since(position) is None
    assert generation.changed_since(position + 1) is not None


def test_a_path_too_long_for_the_ring_makes_everything_be_read_again(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    position = generation.position
    with generation.commit() as change:
        change.note("x" * 300)
    assert generation.changed_since(position) is None


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("virtd.state.commit.Intent.write", 0),
        ("virtd.state.files.Pending.publish", 0),
        ("virtd.state.journal.append", 1),
        ("virtd.state.commit.Intent.forget", 1),
        ("virtd.state.commit.Generation._complete", 1),
    ],
)
@pytest.mark.parametrize("by", ["reader", "writer"])
def test_what_a_writer_has_changed_is_told_even_if_it_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, told: int, by: str
) -> None:
    generation = Generation(str(tmp_path))
    reader = generation.subscribe()
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(where, die)
        with Generation(str(tmp_path)).commit() as change:
            change.publish(files.prepare(str(tmp_path / "a"), b"x", durable=False))
            change.event("test", "changed")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    if by == "reader":
        assert generation.current() is not None
    else:
        with generation.commit() as change:
            change.event("test", "next")
    assert (tmp_path / "a").exists() == bool(told)
    assert [record["name"] for record in reader.read()] == ["changed"] * told + ["next"] * (by == "writer")
    assert not (tmp_path / "generation.intent").exists()
    reader.close()


def test_a_writer_that_is_stopped_keeps_others_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TIMEOUT", 0.2)
    generation = Generation(str(tmp_path))
    pid = os.fork()
    if pid == 0:
        with Generation(str(tmp_path)).commit():
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    assert generation.current() is None
    said = rf"held by pid {pid} in '.*' for 0 s\): a process has been stopped inside one"
    with pytest.raises(VirtError, match=said), generation.commit():
        pass
    os.kill(pid, signal.SIGCONT)
    assert os.waitpid(pid, 0)[1] == 0
    with generation.commit():
        pass
    assert generation.current() is not None


def test_an_intent_that_was_cut_short_is_nothing(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    pid = os.fork()
    if pid == 0:
        with Generation(str(tmp_path)).commit():
            (tmp_path / "generation.intent").write_text('{"files": {')
            die()
    os.waitpid(pid, 0)
    assert generation.current() is not None
    assert not (tmp_path / "generation.intent").exists()


def test_nothing_of_a_block_that_raises_is_done_or_left(tmp_path: Path) -> None:
    generation = Generation(str(tmp_path))
    reader = generation.subscribe()

    def change_and_fail() -> None:
        with generation.commit() as change:
            change.publish(files.prepare(str(tmp_path / "a"), b"x", durable=False))
            change.event("test", "changed")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    assert sorted(os.listdir(tmp_path)) == ["generation", "journal"]
    assert reader.read() == []
    reader.close()

"""QMP without input and output: whole, byte by byte, with garbage, and without bounds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtd.drivers.qemu.monitor import qmp

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7},'
    b' "package": "Debian"}, "capabilities": ["oob"]}}\r\n'
)
EVENT = b'{"timestamp": {"seconds": 3, "microseconds": 14}, "event": "STOP"}\r\n'
CONVERSATION = (
    GREETING + b'{"return": {}, "id": 1}\r\n' + EVENT + b'{"id": 2, "error": {"class": "X", "desc": "no"}}\r\n'
)
MESSAGES = [
    qmp.Greeting((7, 2, 22), "Debian", ["oob"]),
    qmp.Answer(1, {}, None),
    qmp.Event("STOP", {}, 3_000_014),
    qmp.Answer(2, None, ("X", "no")),
]


def test_whole() -> None:
    assert qmp.Reader("g").feed(CONVERSATION) == MESSAGES


def test_byte_by_byte() -> None:
    reader = qmp.Reader("g")
    assert [m for i in range(len(CONVERSATION)) for m in reader.feed(CONVERSATION[i : i + 1])] == MESSAGES
    assert not reader.partial


def test_the_rest_of_a_line_is_waited_for() -> None:
    reader = qmp.Reader("g")
    assert reader.feed(GREETING + EVENT[:20]) == MESSAGES[:1]
    assert reader.partial
    assert reader.feed(EVENT[20:]) == [MESSAGES[2]]


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400 Bad Request",
        b"[]",
        b"1",
        b"{}",
        b'{"return": NaN}',
        b'{"error": {}}',
        b'{"error": "x"}',
        b'{"event": 1}',
        b'{"event": "STOP", "data": []}',
        b'{"QMP": {}}',
        b'{"QMP": {"version": {"qemu": {"major": true, "minor": 1, "micro": 1}}}}',
        b'{"return": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"return": ' + b"[" * 200_000,
        b'{"return": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_garbage_is_an_error_that_names_the_guest(line: bytes) -> None:
    with pytest.raises(qmp.MonitorClosed, match="vm='web1'"):
        qmp.Reader("web1").feed(line + b"\r\n")


def test_an_endless_line_is_an_error_before_it_fills_the_memory() -> None:
    reader = qmp.Reader("web1", max_line=1000)
    reader.feed(b"x" * 1000)
    with pytest.raises(qmp.MonitorClosed, match="more than 1000 bytes"):
        reader.feed(b"x")
    with pytest.raises(qmp.MonitorClosed, match="more than 1000 bytes"):
        qmp.Reader("web1", max_line=1000).feed(b"x" * 1001 + b"\n")


def test_commands() -> None:
    line = qmp.encode_command("device_add", {"driver": "é"}, 7)
    assert line.endswith(b"\r\n")
    assert json.loads(line) == {"execute": "device_add", "arguments": {"driver": "é"}, "id": 7}
    assert json.loads(qmp.encode_command("stop", None, 1)) == {"execute": "stop", "id": 1}


def test_a_refusal_reads_as_libvirts_does() -> None:
    error = qmp.QMPError("x", "CommandNotFound", "The command x has not been found")
    assert error.message == ("internal error: unable to execute QEMU command 'x': The command x has not been found")
    assert error.qmp_class == "CommandNotFound"


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_comes_is_a_message_or_an_error(portions: list[bytes]) -> None:
    """Fuzz: any bytes give messages or MonitorClosed, nothing else."""
    reader = qmp.Reader("g", max_line=300)
    try:
        for portion in portions:
            reader.feed(portion)
    except qmp.MonitorClosed:
        pass


VALUE: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
)
TABLE = st.dictionaries(
    st.sampled_from(["class", "desc", "seconds", "version", "qemu", "major", "capabilities"]), VALUE, max_size=3
)
KEY = st.sampled_from(["return", "error", "event", "QMP", "id", "data", "timestamp"])


@given(st.dictionaries(KEY, VALUE | TABLE, max_size=4))
def test_whatever_json_comes_is_a_message_or_an_error(message: dict[str, object]) -> None:
    try:
        (got,) = qmp.Reader("g").feed(json.dumps(message).encode() + b"\n")
    except qmp.MonitorClosed:
        return
    assert isinstance(got, (qmp.Answer, qmp.Event, qmp.Greeting))
